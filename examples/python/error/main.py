"""Fails, to show what a caller gets to see: the exception's type, message and stack."""


def parse(text):
    return int(text)


def handler(event, context):
    print('about to parse', event)
    return parse(event['number'])
