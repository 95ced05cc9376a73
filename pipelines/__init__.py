"""The way of an event: gateway, dispatcher, ledger, runner, write-back, and the commands around them."""
