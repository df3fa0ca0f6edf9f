"""Configs for tools/workshop/fuzz.py: a correct YAML file in, a hostile or broken one out, as in fuzz_mutations.py."""
from tools.workshop.fuzzing.mutations import any_bytes, scalar

ALIASES = "a: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"k{n}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(12))
BOMBS = (
    ALIASES, ALIASES + "name: *a12\n", ALIASES + "seed: *a12\n", ALIASES + "data: {size: *a12}\n",
    "a: &a [*a]\nname: *a\n",
    "name: &a [*a]\n", "data: &d\n  size: [1, 2]\n  <<: *d\n", "seed: &s {a: *s}\n", "x: &x {<<: [*x, *x]}\n",
    "base: &b [*b, *b]\n", ALIASES.replace("a: &a0 [", "name: &a0 [").replace("\nk", "\ndata") + "\n",
    "name: " + "[" * 3000 + "]" * 3000, "name: " + "{a: " * 3000 + "1" + "}" * 3000, "- " * 5000 + "x", "? " * 3000,
    "name: !!python/object/apply:os.system ['touch ../outside/code']\n",
    "name: !!python/object/new:os.system ['touch ../outside/code']\n", "name: !!python/name:os.system\n",
    "!!python/object/apply:eval [\"open('../outside/code', 'w')\"]\n", "name: !!binary 'ä'\n", "name: !!timestamp x\n",
    "name: 2001-99-99\n", "seed: !!int x\n", "seed: !!float x\n", "name: !!bool x\n", "name: !!set {a, [b]}\n",
    "seed: " + "9" * 5000, "seed: 0x" + "f" * 5000, "seed: 1:" + "9:" * 2000 + "1", "train: {lr: 1:1.5e999}\n",
    "train: {lr: .nan}\n", "train: {lr: .inf}\n", "train: {lr: -.inf}\n", "train: {betas: [.nan, 1]}\n",
    "seed: 1.0e+400\n",
    "base: fuzz.yaml\n", "base: ../config/fuzz.yaml\n", "base: \"\\0\"\n", "base: /dev/zero\n", "base: .\n",
    "base: ''\n",
    f"base: {'x' * 300}.yaml\n", f"base: {'x/' * 3000}\n", "base: ~\n", "base: loop\n", "base: other.yaml\nname: x\n",
    "base: \"\\ud800\"\n", "name: \"\\ud800\"\n", "? [a, b]\n: c\n", "? {a: b}\n: c\n", "{a: b}: c\n", "null: 1\n",
    "1: 2\n",
    "true: 1\n", "? !!binary aGVsbG8=\n: 1\n", "2001-01-01: 1\n", "data: {size: [1, 2, 3]}\n", "data: {1: 2}\n",
    "<<: 3\n", "<<: [1]\n", "data: {<<: {root: x}}\n", "%YAML 9.9\n---\nname: x\n", "a: 1\n---\nb: 2\n",
    "---\n...\n---\n",
    "\t", "&a", "*a", "!", "!<", "|", ">9", "name: |99\n  x", "'", "\"\\x", "\0", "\ufeffname: x\n", "@", "`",
    "name: @\n",
    "__class__: 1\n", "data: {__init__: 1}\n", "keys: 1\n", "data: {update: 1}\n", "model: {dim: 1.0e+1}\n")


def any_yaml(rng, text):
    """A config  ->  one of BOMBS, alone or in the midst of it, a value replaced, or its bytes changed"""
    bomb = rng.randrange(len(BOMBS))
    kind = rng.randrange(5)
    if kind < 2:
        return f"bomb {bomb}", BOMBS[bomb].encode("utf-8", errors="surrogatepass")
    if kind == 2:
        return any_bytes(rng, text.encode())
    lines = text.splitlines()
    place = rng.randrange(len(lines))
    if kind == 3:
        lines.insert(place, BOMBS[bomb])
        how = f"bomb {bomb} in line {place + 1}"
    else:
        key, _, _ = lines[place].partition(":")
        value = rng.choice((str(scalar(rng))[:5000], "[1, x]", "{a: 1}", "~", "1e5", "-1", "&a", "*a", "!!str 1",
                            "off"))
        lines[place] = f"{key}: {value}"
        how = f"line {place + 1} becomes {lines[place][:60]!r}"
    return how, "\n".join(lines).encode("utf-8", errors="surrogatepass")
