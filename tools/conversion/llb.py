"""Names of a released LLB checkpoint and ours; what it shares with LWL has LWL's names."""
import re

# Released name  ->  ours, as regular expressions; the first match counts.
NAMES = (
    (r"transformer\.feature_adjustor\.0\.(.*)", r"matching.conv.\1"),
    (r"transformer\.(?:encoder|decoder)\.self_attn\.WK\.(.*)", r"matching.self_key.\1"),
    (r"transformer\.decoder\.cross_attn\.WK\.(.*)", r"matching.cross_key.\1"),
    (r"combiner\.tm_1\.(.*)", r"fusion.induction.hidden.\1"),
    (r"combiner\.tm_2\.(.*)", r"fusion.induction.out.\1"),
    (r"combiner\.tr_1\.(.*)", r"fusion.transduction.hidden.\1"),
    (r"combiner\.tr_2\.(.*)", r"fusion.transduction.out.\1"),
    (r"label_encoder\.label_backbone\.(layers\..*)", r"label_encoder.trunk.\1"),
    (r"label_encoder\.prejector_tm\.(.*)", r"label_encoder.induction.\1"),
    (r"label_encoder\.prejector_tr\.(.*)", r"label_encoder.transduction.\1"),
    (r"label_encoder\.label_pred_tm\.0\.(.*)", r"label_encoder.label.\1"),
    (r"label_encoder\.label_pred_tr\.0\.(.*)", r"label_encoder.value.\1"),
    (r"label_encoder\.samp_w_pred\.(.*)", r"label_encoder.weight.\1"),
)
UNUSED = r"transformer\..*\.WV\..*|label_encoder\.label_backbone\.head\..*"      # in checkpoints, never used


def our_names(names, lwl_name):
    """Released names, what gives LWL's  ->  {name: ours}; unused ones are left out, two of one tensor have the same"""
    found = {}
    for name in names:
        if not re.fullmatch(UNUSED, name):
            ours = next((re.sub(pattern, place, name) for pattern, place in NAMES if re.fullmatch(pattern, name)), None)
            found[name] = ours or lwl_name(name)
    return found
