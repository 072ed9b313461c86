"""An agent process for the tests of its own death: model_agent.py that can also be made deaf.

SIGUSR1 blocks its event loop for some seconds, as a careless computation would.
"""

import argparse
import logging
import signal
import time

from examples.model_agent import make_agent

if __name__ == "__main__":
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--url", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--block", type=float, default=3.0)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    signal.signal(signal.SIGUSR1, lambda *_: time.sleep(options.block))
    agent = make_agent(options.url, name=options.name, shutdown_s=0.2)
    agent.run()
