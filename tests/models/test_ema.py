import torch
from torch import nn

from u2pl.models import ema


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    net(torch.randn(2, 3, 5, 5))  # moves the running statistics
    return net


def test_parameters_and_batch_norm_statistics_follow_theta_t_and_theta_s():
    teacher, student = ema.teacher_of(network(0)), network(1)
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    ema.update(teacher, student, 0.9)
    for key, after in teacher.state_dict().items():
        if after.is_floating_point():
            expected = 0.9 * before[key].double() + 0.1 * student.state_dict()[key].double()
            assert torch.allclose(after.double(), expected, atol=1e-6), key
    assert not torch.equal(before["1.running_mean"], teacher.state_dict()["1.running_mean"])


def test_a_decay_of_0_copies_the_student():
    teacher, student = ema.teacher_of(network(0)), network(1)
    ema.update(teacher, student, 0.0)
    for ours, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(teacher[1].running_var, student[1].running_var)


def test_the_teacher_shares_no_storage_with_the_student_before_and_after_an_update():
    student = network(0)
    teacher = ema.teacher_of(student)
    for decay in (None, 0.0):
        if decay is not None:
            ema.update(teacher, student, decay)
        theirs = {t.untyped_storage().data_ptr() for t in student.state_dict().values()}
        assert theirs.isdisjoint(t.untyped_storage().data_ptr() for t in teacher.state_dict().values())


def test_the_teacher_takes_no_gradient_and_is_in_evaluation_mode():
    student = network(0)
    teacher = ema.teacher_of(student)
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not teacher.training
    assert all(p.requires_grad for p in student.parameters())
    assert student.training


def test_an_update_leaves_the_student_as_it_was():
    teacher, student = ema.teacher_of(network(0)), network(1)
    before = {k: v.clone() for k, v in student.state_dict().items()}
    ema.update(teacher, student, 0.5)
    assert all(torch.equal(v, before[k]) for k, v in student.state_dict().items())
