"""The units of work: each decides one change from the state that it is committed against.

Every unit that takes a token judges it inside the transaction, because the state may have changed since the call
arrived. So no call can act on a session that another call has just ended.
"""
