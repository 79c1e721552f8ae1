import json

from jepa_agent.experiments import watching


def result(watched, seed, seconds, **more):
    told = {"env": "CartPole-v1", "seed": seed, "watched": watched, "warnings": [], "cpu_seconds": seconds}
    return {**told, "cpu_seconds_watching": 0.5 if watched else 0.0, "best_return": 100.0 + seed, **more}


def test_the_table_counts_warnings_and_sets_pairs_side_by_side(tmp_path):
    made = [result(False, 1, 10.0), result(True, 1, 11.0), result(True, 2, 9.0, warnings=["collapse begins at step 5: ..."])]
    for k, one in enumerate(made):
        (tmp_path / f"run-seed{k}.json").write_text(json.dumps(one))
    assert watching.table(tmp_path).splitlines()[2:] == [
        "| CartPole-v1 | 2 | 1 | 102 | 5.0 % | 1.100 (1) |",
        "| all | 2 | 1 | - | 5.0 % | 1.100 (1) |",
    ]


def test_what_is_missing_is_run_once_and_the_first_seed_also_unwatched(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(watching, "run", lambda *given: done.append(given) or result(given[3], given[1], 1.0))
    call = ["--output", str(tmp_path), "--envs", "CartPole-v1", "--seeds", "3", "4", "--steps", "20"]
    watching.main(call)
    assert done == [("CartPole-v1", seed, 20, watched) for seed, watched in ((3, False), (3, True), (4, True))]
    watching.main(call)
    assert len(done) == 3
    assert len((tmp_path / "table.md").read_text().splitlines()) == 4


def test_a_run_tells_what_was_measured_and_what_it_took():
    found = watching.run("CartPole-v1", 0, 260, True)
    assert [row["step"] for row in found["measured"]] == [250]
    assert 0.0 < found["cpu_seconds_watching"] < found["cpu_seconds"]
    assert found["warnings"] == []
    assert found["last_return"] > 0
