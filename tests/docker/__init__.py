"""The docker tier: an engine, base images and site settings for tests that run containers. `make test-docker`."""
