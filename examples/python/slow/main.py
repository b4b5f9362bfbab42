"""Takes as many seconds as the payload says: more than its time limit ends it."""
import json
import os
import time

seconds = json.loads(os.environ.get('FUNCTION_PAYLOAD', '{}')).get('seconds', 5)
print(f'working for {seconds} s', flush=True)
time.sleep(seconds)
print(json.dumps({'slept': seconds}))
