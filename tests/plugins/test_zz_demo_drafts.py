import json, os
def test_demo(reference_errors):
    R=[json.loads(l) for l in open('/tmp/authors-demo1.ndjson')]
    for r in R:
        pass
    errors=[e for e in reference_errors(R) if "ObservationValue#AIAST" not in e]
    print(len(R), len(errors)); 
    for e in errors[:10]: print(e)
    assert errors==[]
