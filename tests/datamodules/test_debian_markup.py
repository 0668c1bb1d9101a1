from __future__ import annotations

from datamodules.corpora.debian_markup import (
    dictionary_entries,
    html_to_text,
    man_to_text,
    pod_to_text,
    tidy,
    wordnet_entries,
)


def test_html_keeps_paragraphs_and_preformatted_text() -> None:
    page = """<html><head><title>t</title></head><body><nav>menu <a>x</a></nav>tail
    <div role="main"><h1>Title</h1><p>One   <b>two</b>
    three &amp; more.</p><pre>  a\n    b</pre><ul><li>x</li><li>y</li></ul>
    <script>no()</script><table><tr><td>1</td><td>2</td></tr></table><!-- remark --> end</div>
    <footer>f</footer></body></html>"""
    text = html_to_text(page)
    assert text.startswith("Title\n\nOne two three & more.\n\n  a\n    b\n")
    assert "x\n\ny" in text
    assert "1 2" in text
    assert text.endswith("end")
    assert not {"menu", "no()", "remark", "tail"} & set(text.split())


def test_html_that_nests_deeply_or_is_empty() -> None:
    assert "deep" in html_to_text("<div>" * 200 + "deep" + "</div>" * 200)
    assert html_to_text("") == ""
    assert html_to_text("<!-- -->") == ""


def test_pod_loses_commands_and_codes() -> None:
    pod = (
        "=encoding utf8\n\n=head1 NAME\n\nA B<bold I<both>> C<< a->b >> L<text|perlre/x> L<perlfunc> E<lt>x\n"
        "\n=cut\n"
    )
    assert pod_to_text(pod) == "NAME\n\nA bold both a->b text perlfunc <x"


def test_manual_pages_lose_requests() -> None:
    roff = (
        '.\\" comment\n.TH A 3\n.SH NAME\nopen \\- \\fIopen\\fP a file\n.PP\nSee\n.BR read (2),\n'
        '.B "two words"\n.IP x 2\nitem\n'
    )
    assert man_to_text(roff) == "NAME\n\nopen - open a file\n\nSee\nread(2),\ntwo words\n\nx\nitem"


def test_dictionaries_are_cut_into_entries() -> None:
    assert list(dictionary_entries("A\n  first\n\n  more\nB\n  second\n")) == [
        "A\n  first\n\n  more",
        "B\n  second",
    ]
    data = "  1 licence\n00001740 03 n 02 entity 0 living_thing 0 001 ~ 00001930 n 0000 | that which is  \n"
    assert list(wordnet_entries(data)) == ["entity, living thing: that which is"]


def test_tidy_removes_control_signs_and_spare_lines() -> None:
    assert tidy("a\r\n\n\n\nb\x08  \nc\u00b6\u00ad ") == "a\n\nb\nc"
