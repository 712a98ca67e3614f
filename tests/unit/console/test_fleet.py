import io

from firstlight.console.fleet import FleetDisplay, Progress, Stage


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def display(*, terminal: bool = False, total: int = 3) -> tuple[FleetDisplay, io.StringIO, Time]:
    file, clock = io.StringIO(), Time()
    return FleetDisplay(total, file=file, monotonic=clock, terminal=terminal), file, clock


def test_progress_keeps_first_and_last_and_never_goes_back() -> None:
    progress = Progress(3)
    assert progress.update({Stage.MADE: 1, Stage.ATTACHED: 0}, 1.0) == [Stage.MADE]
    assert progress.update({Stage.MADE: 3}, 2.0) == [Stage.MADE]
    assert progress.update({Stage.MADE: 2}, 3.0) == []
    assert progress.update({Stage.MADE: 9}, 4.0) == []
    assert (progress.counts[Stage.MADE], progress.first[Stage.MADE], progress.last[Stage.MADE]) == (3, 1.0, 2.0)
    assert not progress.complete


def test_a_fleet_is_complete_when_all_have_passed_all_stages() -> None:
    progress = Progress(2)
    progress.update(dict.fromkeys(Stage, 2), 1.0)
    assert progress.complete
    almost = Progress(2)
    almost.update({stage: 2 for stage in Stage if stage is not Stage.RECEIPTS_READ}, 1.0)
    assert not almost.complete


def test_without_a_terminal_there_is_a_line_for_each_move() -> None:
    shown, file, clock = display()
    with shown:
        shown.say("the owner deploys")
        clock.now += 1.5
        shown.update({Stage.MADE: 3, Stage.DISCOVERED: 0})
        shown.update({Stage.MADE: 3})
        clock.now += 1
        shown.update({Stage.NETWORK_GRANTED: 2})
    assert file.getvalue().splitlines() == [
        "    0.0 s  the owner deploys",
        "    1.5 s  made: 3/3",
        "    2.5 s  network granted: 2/3",
    ]


def test_the_final_table_has_counts_and_times() -> None:
    shown, file, clock = display()
    clock.now += 2
    shown.update({Stage.CONNECTED: 1})
    clock.now += 3
    shown.update({Stage.CONNECTED: 2})
    file.truncate(0)
    shown.finish()
    rows = {line[:18].strip(): line[18:].split() for line in file.getvalue().splitlines()}
    assert rows["connected"] == ["2/3", "2.0", "s", "5.0", "s"]
    assert rows["receipts read"] == ["0/3", "-", "-"]
    assert set(rows) >= {stage.words for stage in Stage}


def test_in_a_terminal_all_stages_are_drawn() -> None:
    shown, file, _ = display(terminal=True)
    with shown:
        shown.say("switching on")
        shown.update({Stage.ATTACHED: 2})
        shown.finish()
    text = file.getvalue()
    assert "switching on" in text
    for stage in Stage:
        assert stage.words in text
    assert "2/3" in text


def test_an_empty_fleet_is_no_error() -> None:
    shown, file, _ = display(total=0, terminal=True)
    with shown:
        shown.update({Stage.MADE: 0})
    assert "0/0" in file.getvalue()
