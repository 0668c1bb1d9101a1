"use strict";
// Each chart is drawn for the room it has: panels stand side by side or below each other, and what cannot
// get narrower scrolls in its own box.
const boxes = [...document.querySelectorAll(".chart")];
const shown = new Map();

function fitted(spec, room) {
  const { kind, columns, margin, least } = spec.usermeta;
  const fitting = Math.max(1, Math.min(columns, Math.floor(room / 400)));
  const width = Math.max(least, Math.floor(room / fitting) - margin - (fitting > 1 ? 16 : 0));
  if (kind === "single") spec.width = width;
  if (kind === "facet") { spec.columns = fitting; spec.spec.width = width; }
  if (kind === "concat") { spec.columns = fitting; spec.concat.forEach(panel => { panel.width = width; }); }
  spec.config.legend.columns = Math.max(1, Math.floor(room / 240));
  return spec;
}

async function draw(box) {
  const spec = JSON.parse(document.getElementById(box.dataset.spec).textContent);
  shown.get(box)?.finalize();
  try {
    const chooser = box.previousElementSibling;
    chooser.replaceChildren();
    const options = { renderer: "svg", actions: false, bind: chooser };
    const result = await vegaEmbed(box, fitted(spec, box.clientWidth), options);
    shown.set(box, result);
  } catch (error) {
    console.error(error);
    box.textContent = `This chart cannot be drawn: ${error}`;
  }
}

// The run that is chosen in one chart is shown in all that have it.
function follow() {
  const choosing = [...shown.values()].filter(result => result.spec.usermeta.runs);
  for (const { view } of choosing) {
    view.addSignalListener("chosen", (name, run) => {
      for (const other of choosing) {
        if (other.spec.usermeta.runs.includes(run) && other.view.signal("chosen") !== run) {
          other.view.signal("chosen", run).runAsync();
        }
      }
    });
  }
}

async function drawAll() {
  await Promise.all(boxes.map(draw));
  follow();
  document.body.dataset.ready = performance.now();
}

let width = window.innerWidth;
let waiting;
window.addEventListener("resize", () => {
  if (Math.abs(window.innerWidth - width) < 20) return;
  clearTimeout(waiting);
  waiting = setTimeout(() => { width = window.innerWidth; drawAll(); }, 200);
});
window.addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach(details => { details.open = true; });
});
drawAll();
