"""Until guard.py is there."""


class Probe:
    def __init__(self, *a, **k):
        pass

    def drift(self, predict):
        return {}


def judge_forgetting(*a):
    return True, "", {}
