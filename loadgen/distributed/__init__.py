"""Locust: the master, its workers, what they tell each other, the web form and tab."""
