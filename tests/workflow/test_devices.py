"""Workers share out the GPUs they were given."""

from aldriver.workflow.devices import gpu_of, gpus


def test_workers_take_gpus_in_turn():
    given = {"CUDA_VISIBLE_DEVICES": "2, GPU-a1,5"}
    assert gpus(given) == ["2", "GPU-a1", "5"]
    taken = [gpu_of(k, "cuda", given)["CUDA_VISIBLE_DEVICES"] for k in range(5)]
    assert taken == ["2", "GPU-a1", "5", "2", "GPU-a1"]


def test_without_a_choice_nothing_is_set(monkeypatch, tmp_path):
    from aldriver.workflow import devices

    assert gpu_of(1, "cpu", {"CUDA_VISIBLE_DEVICES": "0,1"}) == {}
    assert gpu_of(1, "cuda", {"CUDA_VISIBLE_DEVICES": "3"}) == {}
    assert gpu_of(1, "cuda", {"CUDA_VISIBLE_DEVICES": ""}) == {}
    monkeypatch.setattr(devices, "DRIVER", tmp_path)
    assert gpu_of(1, "cuda", {}) == {}
    for name in ("0000:01:00.0", "0000:41:00.0"):
        (tmp_path / name).mkdir()
    assert gpu_of(1, "cuda", {}) == {"CUDA_VISIBLE_DEVICES": "1"}
