"""perfbench's clock in a locustfile of one's own. Run it with Locust itself:

locust -f docs/examples/locustfile.py --host http://127.0.0.1:8000 --headless --users 4 --run-time 30s
"""

import os

from locust import between, task

from perfbench import LlmUser


class Visitor(LlmUser):
    model = os.environ.get("MODEL", "my-model")
    wait_time = between(0.01, 0.05)

    @task
    def ask(self) -> None:
        record = self.chat([{"role": "user", "content": "Turn on the light in the kitchen"}], max_tokens=16)
        if record.first_token_ns is not None and record.sent_ns is not None:
            ttft_s = (record.first_token_ns - record.sent_ns) / 1e9
            print(f"{record.request_id}: {record.output_tokens} tokens, first after {ttft_s:.6f} s ({record.stamp} stamp)")
