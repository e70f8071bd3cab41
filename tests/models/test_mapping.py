"""The search for the nearest generated image: exact, one image's path untouched by the others, finished images gone."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from phenotype.models.mapping import GROUP, SCHEDULES, Schedule, frozen, in_groups, random_starts, search
from phenotype.models.networks import decoder, encoder

LATENT, SIZE = 8, 16


@pytest.fixture(scope="module")
def networks() -> tuple[torch.nn.Module, torch.nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator, features = decoder(SIZE, 8, LATENT), encoder(SIZE, 8, 1, norm=False)[:-2]
        for layer in generator:  # untrained, it makes images that hardly differ
            if isinstance(layer, torch.nn.ConvTranspose2d):
                layer.weight.data *= 4
    return frozen(generator), frozen(features)


def losses(networks):
    features = networks[1]

    def loss(again, x):
        residual = (again - x).abs().flatten(1).sum(1)
        return 0.9 * residual + 0.1 * (features(again) - features(x)).abs().flatten(1).sum(1)

    return loss


def problem(networks, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images that the generator can make, with noise, and where to start."""
    random = torch.Generator().manual_seed(1)
    x = networks[0](torch.randn(n, LATENT, generator=random))
    noisy = (x + 0.02 * torch.randn(x.shape, generator=random)).clamp(0, 1)
    return noisy, torch.randn(n, LATENT, generator=random)


def test_one_image_moves_as_torchs_adam_moves_it(networks):
    x, start = problem(networks, 1)
    schedule = Schedule(30, 0.05, cosine=False)
    found = search(networks[0], losses(networks), (x,), start, schedule)
    z = start.clone().requires_grad_()
    adam = torch.optim.Adam([z], lr=0.05)
    path = []
    for _ in range(31):
        loss = losses(networks)(networks[0](z), x)
        path.append(loss.item())
        adam.zero_grad()
        loss.sum().backward()
        adam.step()
    torch.testing.assert_close(found.losses[:, 0], torch.tensor(path), rtol=1e-4, atol=1e-4)
    assert path[-1] < 0.7 * path[0]


def test_the_lowest_loss_is_what_is_given_back(networks):
    x, start = problem(networks, 5)
    found = search(networks[0], losses(networks), (x,), start, Schedule(20, 2.0, cosine=False))  # leaps about
    assert torch.equal(found.loss, found.losses.amin(0)) and not torch.equal(found.loss, found.losses[-1])
    torch.testing.assert_close(networks[0](found.z), found.images)
    torch.testing.assert_close(losses(networks)(found.images, x), found.loss)


@pytest.mark.parametrize("tolerance", [0.0, 0.02])
def test_an_images_path_is_its_own(networks, tolerance):
    """Alone, with others, in another order: the same bits."""
    x, start = problem(networks, GROUP + 5)
    schedule = dataclasses.replace(SCHEDULES["fast"], steps=40, tolerance=tolerance, patience=5)

    def found(rows):
        return search(networks[0], losses(networks), (x[rows],), start[rows], schedule)

    everything = found(torch.arange(len(x)))
    assert torch.equal(everything.z, found(torch.arange(len(x))).z)
    for rows in (torch.tensor([3]), torch.tensor([36, 0, 3]), torch.arange(len(x)).flip(0)):
        some = found(rows)
        assert torch.equal(some.steps, everything.steps[rows])
        torch.testing.assert_close(some.z, everything.z[rows], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(some.losses, everything.losses[:, rows], rtol=1e-6, atol=1e-6, equal_nan=True)


def test_finished_images_leave_without_a_trace_in_the_others(networks):
    x, start = problem(networks, 24)
    schedule = Schedule(80, 0.1, cosine=False, patience=5)
    whole = search(networks[0], losses(networks), (x,), start, schedule)
    stopped = search(networks[0], losses(networks), (x,), start, schedule.stopping(0.02))
    assert int(whole.steps.min()) == 80
    assert len(set(stopped.steps.tolist())) > 3 and float(stopped.steps.float().mean()) < 70
    for image, steps in enumerate(stopped.steps.tolist()):
        torch.testing.assert_close(stopped.losses[: steps + 1, image], whole.losses[: steps + 1, image])
        assert stopped.losses[steps + 1 :, image].isnan().all()
    patient = search(networks[0], losses(networks), (x,), start, schedule.stopping(0.0001))
    assert float(whole.loss.mean()) <= float(patient.loss.mean()) < float(stopped.loss.mean())


def test_starts_are_drawn_by_the_image_alone(networks):
    x, _ = problem(networks, 40)
    starts = random_starts(x, 500)
    assert torch.equal(random_starts(x[[7, 3]], 500), starts[[7, 3]])
    assert not torch.equal(starts[0], starts[1])
    assert abs(float(starts.mean())) < 0.03 and abs(float(starts.std()) - 1) < 0.03


def test_groups_leave_no_row_out():
    rows = torch.arange(2 * GROUP + 3.0)
    sizes = []
    (doubled,) = in_groups(lambda some: (sizes.append(len(some)) or 2 * some,), rows)
    assert torch.equal(doubled, 2 * rows)
    assert sizes == [GROUP, GROUP, 8]
    (nothing,) = in_groups(lambda some: (2 * some,), rows[:0])
    assert nothing.shape == (0,)


def test_a_frozen_copy_takes_no_gradients_and_the_original_stays_as_it_is():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Dropout(0.5))
    still = frozen(network, channels_last=True)
    assert not still.training and not any(parameter.requires_grad for parameter in still.parameters())
    assert network.training and all(parameter.requires_grad for parameter in network.parameters())
    assert torch.equal(still[0].weight, network[0].weight) and still[0].weight is not network[0].weight
