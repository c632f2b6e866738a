"""L_c and the memory bank in somebody's own Lightning loop, with a network of segmentation_models_pytorch.

Run it: python examples/lightning_loop.py (random images; two minutes on a CPU are plenty). It needs
pip install lightning segmentation-models-pytorch.
"""

import lightning
import segmentation_models_pytorch as smp
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

import u2pl
from u2pl.losses import contrastive, partition

CLASSES, D, IGNORE = 4, 32, 255
M, N, R_L, R_H, DELTA_P, TAU, LAMBDA_C, ALPHA = 50, 64, 1, 3, 0.3, 0.5, 0.1, 0.2


class Network(nn.Module):
    """Any network will do that gives logits and, for each of its pixels, D features."""

    def __init__(self) -> None:
        super().__init__()
        self.body = smp.Unet("resnet18", encoder_weights=None, classes=D)
        self.classify, self.represent = nn.Conv2d(D, CLASSES, 1), nn.Conv2d(D, D, 1)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (B, C, H, W), and representations (P, D) of all pixels in one row."""
        features = self.body(image)
        return self.classify(features), self.represent(features).permute(0, 2, 3, 1).flatten(0, 2)


class SemiSupervised(lightning.LightningModule):
    """U²PL's losses; what is Lightning's stays Lightning's."""

    def __init__(self) -> None:
        super().__init__()
        self.student = Network()
        self.teacher = AveragedModel(self.student, multi_avg_fn=get_ema_multi_avg_fn(0.99))
        self.bank = u2pl.MemoryBank([1000] * CLASSES, D)

    def training_step(self, batch: dict, _: int) -> torch.Tensor:
        """L_s + L_u + lambda_c L_c."""
        (image, label), (unlabeled,) = batch["labeled"], batch["unlabeled"]
        both = torch.cat([image, unlabeled])
        logits, z_PD = self.student(both)
        with torch.no_grad():
            teacher_logits, teacher_PD = self.teacher(both)
            guess, entropy, _ = partition.predict(teacher_logits[len(image) :])
            gamma = partition.gamma_t(entropy, torch.ones_like(guess, dtype=torch.bool), ALPHA)  # Eq. 6
            pseudo = partition.pseudo_label(guess, entropy, gamma, IGNORE)
            prob_CP = teacher_logits.softmax(1).transpose(0, 1).flatten(1)
            rank_CP = contrastive.coarse_ranks(prob_CP, R_L, R_H)
            known_P = torch.cat([label, pseudo]).flatten()
            anchor_CP = contrastive.anchor_mask(known_P, prob_CP, DELTA_P)  # Eqs. 9 to 11
            of_labels, nobody = label.numel(), torch.full_like(pseudo, IGNORE)
            easy_CP = contrastive.labeled_negative_mask(
                torch.cat([label, nobody]).flatten(), rank_CP, R_L
            )  # Eq. 14
            unsure_P = torch.cat(
                [torch.zeros_like(known_P[:of_labels], dtype=bool), (entropy >= gamma).flatten()]
            )
            unlikely_CP = contrastive.unlabeled_negative_mask(unsure_P, rank_CP, R_L, R_H)  # Eq. 15
            self.bank.push(teacher_PD, easy_CP | unlikely_CP)
            center_CD, there_C = contrastive.centers(teacher_PD, anchor_CP)  # Eq. 12
            anchor_CM = contrastive.sample(anchor_CP, M)
        drawn = self.bank.storage, self.bank.sample(M, N), TAU
        loss_C = contrastive.info_nce(z_PD[anchor_CM], center_CD, *drawn, length_K=self.bank.length)  # Eq. 4
        l_c = contrastive.mean_over_classes(loss_C, there_C & (self.bank.filled_C > 0), CLASSES)
        l_s = cross_entropy(logits[: len(image)], label, ignore_index=IGNORE)
        l_u = cross_entropy(logits[len(image) :], pseudo, ignore_index=IGNORE)
        self.log_dict({"L_s": l_s, "L_u": l_u, "L_c": l_c}, prog_bar=True)
        return l_s + l_u + LAMBDA_C * l_c

    def on_before_zero_grad(self, _: torch.optim.Optimizer) -> None:
        """The teacher follows the student after each step."""
        self.teacher.update_parameters(self.student)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Of the student alone."""
        return torch.optim.SGD(self.student.parameters(), lr=0.01, momentum=0.9)


def main(steps: int = 8) -> SemiSupervised:
    """Train on noise, for the sake of the example."""
    lightning.seed_everything(0, verbose=False)
    images, labels = torch.randn(16, 3, 64, 64), torch.randint(0, CLASSES, (16, 64, 64))
    loaders = {
        "labeled": DataLoader(TensorDataset(images, labels), batch_size=2),
        "unlabeled": DataLoader(TensorDataset(images.flip(0)), batch_size=2),
    }
    module = SemiSupervised()
    trainer = lightning.Trainer(max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(module, loaders)
    return module


if __name__ == "__main__":
    found = main()
    print({name: round(float(value), 3) for name, value in found.trainer.callback_metrics.items()})
    print("negatives in the bank:", found.bank.filled_C.tolist())
