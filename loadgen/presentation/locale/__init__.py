"""The gettext catalogues, by language, and (`python -m loadgen.presentation.locale`) what keeps them whole."""
