"""Steps of a plan -> a Makefile for `make -j2 -C DIR`, which skips what is done and goes on after a stop.

A step is done once NAME/done stands below DIR; it holds the command, so that a step whose command has changed is not
taken for done. train.py and test.py continue where they stand, and refuse to mix different settings.
"""
import shlex
import sys
from pathlib import Path

HEAD = """\
# {title}
# Everything that is missing, two steps at a time:  make -j2 -C DIR   (-k goes on after a failure, -n only shows)
# Stopped or failed, the same command continues. On several GPUs:  make -j4 -C DIR GPUS="0 1 2 3"
ROOT := {root}
PYTHON ?= {python}
GPUS ?=
{threads}gpu = $(if $(GPUS),CUDA_VISIBLE_DEVICES=$(word $(shell expr $(1) % $(words $(GPUS)) + 1),$(GPUS)))
output = "$(CURDIR)/$(@D)/output.txt"
log = > $(output) 2>&1 || {{ code=$$?; tail -n 12 $(output); echo "All of it:" $(output); exit $$code; }}

.PHONY: tables
tables: {tests}
\tcd $(ROOT) && $(PYTHON) -m tools.reproduce {arguments}
"""
STEP = """
{name}/done: {needs}
\t@echo {name}; mkdir -p $(@D)
\t@cd $(ROOT) && $(call gpu,{number}) $(PYTHON) {command} $(log)
\t@printf '%s\\n' {quoted} > $@
"""


def write_makefile(plan, title, arguments):
    """DIR/Makefile of a Plan; title: a line; arguments: of the command that fills the tables"""
    for step in plan.steps.values():
        if stamp(plan, step).exists() and not is_done(plan, step):
            stamp(plan, step).unlink()
    threads = plan.preset.get("threads")
    root, python = (for_make(shlex.quote(str(path))) for path in (Path.cwd(), interpreter()))
    text = HEAD.format(title=title, root=root, python=python, arguments=for_make(shlex.join(arguments)),
                       tests=" ".join(f"{name}/done" for name in plan.steps),
                       threads=f"export OMP_NUM_THREADS ?= {threads}\n" if threads else "")
    for number, step in enumerate(plan.steps.values()):
        command = shlex.join(step.command)
        text += STEP.format(name=step.name, needs=" ".join(f"{name}/done" for name in step.needs), number=number,
                            command=for_make(command), quoted=for_make(shlex.quote(command)))
    plan.output.mkdir(parents=True, exist_ok=True)
    (plan.output / "Makefile").write_text(text, encoding="utf-8")


def stamp(plan, step):
    return plan.output / step.name / "done"


def is_done(plan, step):
    """Whether a step was completed with the very command that the plan has now"""
    path = stamp(plan, step)
    return path.is_file() and path.read_text(encoding="utf-8") == shlex.join(step.command) + "\n"


def interpreter():
    """This Python, as one would type it from the current folder."""
    path = Path(sys.executable)
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def for_make(text):
    if "\n" in text:
        raise ValueError(f"{text!r}: a Makefile holds no line breaks; leave them out")
    return text.replace("$", "$$")
