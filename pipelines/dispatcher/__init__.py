"""The dispatcher: Kafka records become rows of the ledger, and rows become Airflow runs.

Three threads, each a loop of small steps that may end anywhere: the ledger alone knows how far things are.

    intake    Kafka -> match -> ledger -> offset commit
    batches   ledger -> run decided on -> POST to Airflow -> run noted as posted
    reaper    runs that ended without finishing their rows -> rows given back
"""
