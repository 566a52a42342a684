import threading

import pytest

from streaming_job.job import BatchGate, StopRequestedError


def test_no_batch_begins_once_a_stop_was_requested() -> None:
    gate = BatchGate()
    gate.request_stop()
    with pytest.raises(StopRequestedError), gate.batch():
        pytest.fail("a batch was let through")


def test_a_pause_is_refused_while_a_batch_is_in_hand_and_holds_the_next_one_back() -> None:
    gate = BatchGate()
    with gate.batch(), gate.pause() as is_quiet:
        assert not is_quiet

    began = threading.Event()

    def next_batch() -> None:
        with gate.batch():
            began.set()

    with gate.pause() as is_quiet:
        assert is_quiet
        waiting = threading.Thread(target=next_batch)
        waiting.start()
        assert not began.wait(0.1)
    waiting.join()
    assert began.is_set()


def test_waiting_for_the_batch_in_hand_ends_when_the_batch_does() -> None:
    gate = BatchGate()
    let_go = threading.Event()
    in_hand = threading.Event()

    def batch() -> None:
        with gate.batch():
            in_hand.set()
            let_go.wait()

    worker = threading.Thread(target=batch)
    worker.start()
    in_hand.wait()
    waiter = threading.Thread(target=gate.wait_for_batch_in_hand)
    waiter.start()
    assert waiter.is_alive()
    let_go.set()
    waiter.join()
    worker.join()
