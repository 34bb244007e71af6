"""The units of work: what each change decides, in one go, from the state it is committed against.

Every unit that takes a token judges it here, inside the transaction: what was true when the call came in does not
count, so no call can act on a session that another has just ended.
"""
