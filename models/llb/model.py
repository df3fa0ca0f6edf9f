"""LLB, Figure 2: LWL with a second branch beside its target model, labels from the BFF, and a gated sum of both."""
from models.llb.fusion import Fusion, Sum
from models.llb.label_encoder import LabelEncoder
from models.llb.matching import Matching
from models.lwl.learner import apply_target_model
from models.lwl.model import LWL


class LLB(LWL):
    """backbone: models.backbone.Pyramid; the rest are the config's values. Images (N, 3, H, W), RGB in [0, 1]."""

    def __init__(self, backbone, *, feature_dim=512, key_dim=128, filters=32, widths=(64, 128, 128, 256), reg=0.01,
                 label_encoder="vitae", label_input="bff", bff_flavour="imagenet", label_pretrained=False,
                 fusion="gate"):
        super().__init__(backbone, feature_dim=feature_dim, filters=filters, widths=widths, label="mask", reg=reg)
        self.label_encoder = LabelEncoder(trunk=label_encoder, source=label_input, flavour=bff_flavour,
                                          filters=filters, pretrained=label_pretrained)
        self.matching = Matching(backbone.channels[2], dim=feature_dim, key_dim=key_dim)
        self.fusion = Fusion(filters) if fusion == "gate" else Sum()
        self.eval()

    def segment(self, tau, x, levels, size, transduced):
        """As LWL's, with what the matching found, (B, D, h, w)  ->  logits (B, H, W)"""
        induced = apply_target_model(x[None], tau.to(x.dtype))[0]
        return self.decoder(self.fusion(induced, transduced), levels, size)
