"""mohge-lm-eval: lm-eval's own command line, which knows `--model mohge`.

For example: mohge-lm-eval --model mohge --model_args checkpoint=RUN_DIR --tasks piqa --device cpu
"""

from __future__ import annotations

import sys

from mohge.errors import UserError


def main() -> None:
    """Console entry point."""
    import torch
    from lm_eval.__main__ import cli_evaluate

    import evaluation.harness.bridge  # noqa: F401  (registers the model)
    from mohge.parallel.ranks import found_rank, this_rank
    from mohge.parallel.world import connect, disconnect

    try:
        if found_rank() is not None:  # under torchrun or srun
            connect(this_rank(), "cuda" if torch.cuda.is_available() else "cpu")
        cli_evaluate()
        disconnect()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":  # torchrun -m evaluation.harness.command_line
    main()
