import json
import os

payload = json.loads(os.environ.get('FUNCTION_PAYLOAD', '{}'))
print(json.dumps({'result': 'success', 'received': payload}))
