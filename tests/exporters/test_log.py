import logging

from exporters.log import LogfmtFormatter, logfmt


def test_plain_values_stay_plain_and_others_are_quoted():
    fields = {"a": 1, "url": "http://x:1/y", "b": "two words", "c": 'say "hi"', "d": "x=y", "e": "", "f": "1\n2"}
    assert logfmt(fields) == (r'a=1 url=http://x:1/y b="two words" c="say \"hi\"" d="x=y" e="" f="1\n2"')


def test_a_record_is_one_line_with_its_fields_and_its_exception():
    record = logging.LogRecord("exporters.engine", logging.WARNING, "f", 1, "went %s", ("wrong",), None)
    record.fields = {"engine": "a"}
    try:
        raise ValueError("line one\nline two")
    except ValueError as error:
        record.exc_info = (type(error), error, error.__traceback__)
    line = LogfmtFormatter().format(record)
    assert "\n" not in line
    assert 'level=warning logger=exporters.engine event="went wrong" engine=a error=' in line
