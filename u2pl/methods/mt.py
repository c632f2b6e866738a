"""MT: a student learns the pseudo-labels of its moving average, where their entropy is low.

The mean teacher of the paper's tables: hard pseudo-labels filtered by entropy (Eqs. 3 to 8), without
strong augmentation and without the contrastive loss.
"""

from collections.abc import Iterator
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from u2pl import processes
from u2pl.batches.loader import Batch
from u2pl.losses import partition
from u2pl.losses.cross_entropy import lambda_u
from u2pl.methods.base import Step, StepResult, method, over_groups
from u2pl.methods.teaching import Pseudo, Scene, StudentTeacher, alpha_of
from u2pl.models import dropout
from u2pl.models.deeplab import upsample
from u2pl.settings import Settings
from u2pl.settings.hyper import MeanTeacherSettings


@method("mt")
class MeanTeacher(StudentTeacher):
    """L_s + lambda_u L_u (Eq. 1 without its last term)."""

    settings_class: ClassVar[type[Settings]] = MeanTeacherSettings
    settings: MeanTeacherSettings

    def sees_mixed(self, step: Step) -> bool:
        """The entropy too may be that of a pass over the mixed images."""
        return super().sees_mixed(step) or self.settings.entropy_pass == "mixed"

    def taught_parts(self, batch: Batch, step: Step) -> Iterator[StepResult]:
        """L_s, lambda_u L_u, and what a method built on this one adds."""
        s = self.settings
        scene = self.scene(batch, step)
        more = self.more(scene, step)
        ignore, target, pseudo = self.classes.ignore_index, scene.target, scene.pseudo
        weight_G = over_groups(
            self.recipe.replicas, partial(lambda_u, eta=s.eta, ignore_index=ignore), target, pseudo.valid
        )
        labeled_G = self.count_labeled(batch.labeled.mask)
        reliable_G = (target != ignore).view(self.recipe.replicas, -1).sum(dim=1).clamp(min=1)
        measured, tallies = self.measured(target, pseudo)
        health: dict[str, Tensor | float] = {
            "alpha_t": scene.alpha,
            "gamma_t": scene.gamma_B11.mean(),
            "lambda_u": weight_G.mean(),
            **measured,
        }
        kept = dropout.draw(self.student, 2 * len(target), step.generator)
        for part in self.cut(len(pseudo.image), self.recipe.micro_batch):
            student = self.see(
                self.student, kept, part, batch.labeled.image, pseudo.image, represent=self.has_representation
            )
            on_labeled, on_unlabeled = upsample(student.logits, target.shape[1:]).chunk(2)
            mask = batch.labeled.mask[part.mine]
            wanted = target[part.first : part.first + part.images]
            losses = {
                "supervised": self.mean_loss(on_labeled, mask, labeled_G, part, ignore),
                "unsupervised": self.mean_loss(on_unlabeled, wanted, reliable_G, part, ignore, weight_G),
            }
            yield StepResult(
                losses | more.losses(student, part), health | more.health, tallies | more.tallies
            )

    @torch.no_grad()
    def scene(self, batch: Batch, step: Step) -> Scene:
        """What the teacher says of the batch, and which of it is reliable."""
        s, ignore = self.settings, self.classes.ignore_index
        alpha = alpha_of(s, step)
        # Labels of the images as they are; then the same boxes mix the images and all that goes with them.
        pseudo = self.augmented(self.pseudo_labels(batch, step).everywhere(), step)
        teacher = None
        if self.sees_mixed(step):
            teacher = self.look(batch.labeled.image, pseudo.image, step=step)
        if s.entropy_pass == "mixed":
            assert teacher is not None
            on_mixed = self.said(teacher.logits[len(batch.labeled.image) :], pseudo.label.shape[1:])
            pseudo = pseudo._replace(entropy=processes.gather(on_mixed.entropy))
        gamma_B11 = self.threshold(pseudo, 1 - alpha)
        target = partition.pseudo_label(pseudo.label, pseudo.entropy, gamma_B11, ignore)
        return Scene(batch, pseudo, target, alpha, gamma_B11, pseudo.valid, teacher)

    @torch.no_grad()
    def pseudo_labels(self, batch: Batch, step: Step) -> Pseudo:
        """The teacher's labels of this process's plain images, and their entropies (Eqs. 5 and 6)."""
        assert batch.unlabeled is not None
        image, truth, valid = batch.unlabeled[:3]
        view = self.look(image, step=step, represent=False, mode="eval")
        said = self.said(view.logits, image.shape[2:])
        return Pseudo(image, said.label.where(valid, self.classes.ignore_index), said.entropy, valid, truth)

    def augmented(self, pseudo: Pseudo, step: Step) -> Pseudo:
        """What the student sees: MT has no strong augmentation."""
        return pseudo
