"""Quality: whether the engines give the same answers, each alone and under load. Speed of other answers is no win."""
