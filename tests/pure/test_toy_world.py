"""The toy world: latents and pictures are one, and every scene has its seed."""

import torch

from disca.toy import world


def scenes(count: int) -> world.Scene:
    return world.Scene(*(torch.cat(parts) for parts in zip(*map(world.random_scene, range(count)), strict=True)))


def test_latents_become_the_pictures_they_were_made_of():
    video = world.pictures(scenes(4))
    latents = world.to_latents(video)
    assert latents.shape == (4, 16, world.FRAMES, 8, 8)
    torch.testing.assert_close(world.to_pictures(latents), video, atol=1e-5, rtol=0.0)


def test_latents_are_of_the_size_of_noise():
    assert 0.6 < world.to_latents(world.pictures(scenes(64))).std() < 1.4


def test_a_seed_is_a_scene():
    first, again, other = world.random_scene(3), world.random_scene(3), world.random_scene(4)
    assert torch.equal(first.places, again.places) and torch.equal(first.attributes, again.attributes)
    assert not torch.equal(first.places, other.places)


def test_shapes_stay_in_the_picture_and_move():
    video = world.pictures(scenes(16))
    assert (video[..., 0, :] == world.BACKGROUND).float().mean() > 0.8
    assert ((video[:, :, 1:] - video[:, :, :-1]).abs().amax((1, 2, 3, 4)) > 0.5).all()


def test_the_object_in_front_hides_the_other():
    one = world.random_scene(0)
    attributes = torch.tensor([[[1, 0, 0, 0], [1, 2, 0, 0]]])  # a red and a blue square, at one place
    both = world.Scene(attributes, one.places[:, :1].expand(1, 2, 2))
    found = set(map(tuple, world.pictures(both)[0, :, 0].flatten(1).T.tolist()))
    near = {tuple(torch.tensor(world.COLOURS[name]).tolist()) for name in ("red", "blue")} & found
    assert near == {tuple(torch.tensor(world.COLOURS["blue"]).tolist())}


def test_every_attribute_has_its_token_and_nothing_said_has_none():
    told = world.condition(scenes(2).attributes)
    assert told["context"].shape == (2, 8, world.CONTEXT_WIDTH)
    assert ((told["context"] > 0).sum(-1) == 2).all()  # the value, and whose it is
    assert not any(value.any() for value in world.no_condition().values())
