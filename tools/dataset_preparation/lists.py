"""The lists of MiniVSPW by themselves, without VSPW: complete, well-formed, as published, possible by their rule?"""
from dataloaders.datasets.minivspw_lists import contradictions
from tools.dataset_check.findings import Findings, compare_published, table
from tools.dataset_check.vspw import check_sides, list_sizes, read_lists

FOLDER = "minivspw_lists"
SHOWN = 5


def check_lists(root):
    """The folder of VSPW_480p or of the lists  ->  exit code; prints what is there, and what is wrong"""
    folder, findings = root / FOLDER if (root / FOLDER).is_dir() else root, Findings()
    lists = read_lists(folder, findings)
    if not lists:
        raise FileNotFoundError(f"MiniVSPW: none of train_0.txt to test_3.txt in {folder}.\n  What to download: "
                                f"python -m tools.prepare_data explain minivspw")
    check_sides(lists, findings)
    rows = compare_published(list_sizes(lists), findings)
    against = contradictions(lists)
    print(f"{table(rows)}\n\n{findings.text()}\n{len(against)} contradictions to the rule of the lists")
    print("".join(f"    {line}\n" for line in against[:SHOWN]), end="")
    return 1 if against else findings.exit_code()
