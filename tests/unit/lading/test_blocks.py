"""The memory of an upload: handed out, waited for, and used again."""

from __future__ import annotations

import asyncio
import gc
import weakref

from lading._upload.blocks import Block, Blocks


async def test_a_block_that_was_let_go_is_the_next_one_that_is_taken() -> None:
    blocks = Blocks(2, 100)
    first = await blocks.take()
    first.memory[:] = b"x" * 100
    first.hold(60)
    first.release(20)
    second = await blocks.take()
    assert second is not first
    first.release(40)
    assert await blocks.take() is first
    assert bytes(first.memory) == b"x" * 100


async def test_a_block_of_which_nothing_is_held_goes_back_at_once() -> None:
    blocks = Blocks(1, 100)
    block = await blocks.take()
    block.hold(0)
    assert await blocks.take() is block


async def test_who_waits_longest_is_next_and_who_gave_up_gets_none() -> None:
    blocks = Blocks(1, 100)
    block = await blocks.take()
    order: list[str] = []

    async def wait(name: str) -> Block:
        taken = await blocks.take()
        order.append(name)
        return taken

    impatient, first, second = (asyncio.create_task(wait(name)) for name in ("impatient", "first", "second"))
    await asyncio.sleep(0)
    impatient.cancel()
    block.hold(10)
    block.release(10)
    assert await first is block
    assert not second.done()
    block.hold(0)
    assert await second is block
    assert order == ["first", "second"]


async def test_after_closing_nothing_is_kept() -> None:
    blocks = Blocks(2, 100)
    free, held = await blocks.take(), await blocks.take()
    free.hold(0)
    held.hold(10)
    memories = [weakref.ref(block.memory.obj) for block in (free, held)]
    blocks.close()
    held.release(10)
    # By counting references alone: a training loop may have the cyclic collector off.
    gc.disable()
    try:
        del free, held
        assert [memory() for memory in memories] == [None, None]
    finally:
        gc.enable()
