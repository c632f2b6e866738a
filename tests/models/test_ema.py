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


def test_statistics_can_be_left_to_the_teachers_own_passes():
    for decay in (0.0, 0.9):
        teacher, student = ema.teacher_of(network(0)), network(1)
        before = {k: v.clone() for k, v in teacher.state_dict().items()}
        ema.update(teacher, student, decay, statistics=False)
        for key, buffer in teacher.named_buffers():
            assert torch.equal(buffer, before[key]), key
        for (key, ours), theirs in zip(teacher.named_parameters(), student.parameters(), strict=True):
            assert torch.allclose(ours, decay * before[key] + (1 - decay) * theirs, atol=1e-6), key


def test_the_count_of_batches_is_no_statistic_to_average():
    teacher, student = ema.teacher_of(network(0)), network(1)
    student[1].num_batches_tracked.fill_(7)
    ema.update(teacher, student, 0.5)
    assert teacher[1].num_batches_tracked == 1


def test_kept_statistics_outlast_passes_in_training_mode_which_still_use_those_of_the_batch():
    kept, moving = ema.teacher_of(network(0)), ema.teacher_of(network(0))
    ema.keep_statistics(kept)
    images = 3 + torch.randn(4, 3, 6, 6)
    before = kept[1].running_mean.clone(), kept[1].running_var.clone()
    assert torch.equal(kept.train()(images), moving.train()(images))
    assert torch.equal(kept[1].running_mean, before[0])
    assert torch.equal(kept[1].running_var, before[1])
    assert not torch.equal(moving[1].running_mean, before[0])
    ema.update(kept, network(1), 0.5)
    assert not torch.equal(kept[1].running_mean, before[0])


def test_keeping_the_teachers_statistics_leaves_the_students_moving():
    student = network(0)
    teacher = ema.teacher_of(student)
    ema.keep_statistics(teacher)
    before = student[1].running_mean.clone()
    student(3 + torch.randn(4, 3, 6, 6))
    assert not torch.equal(student[1].running_mean, before)
