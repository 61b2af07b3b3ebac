"""A Nostr client of other people's making (pynostr), towards a registry.

python nostr_client.py URL publish   publishes a listing of its own; prints its identifier
python nostr_client.py URL read      prints the listings that it has verified, by their identifiers
"""

import asyncio
import json
import sys
import time

from pynostr.event import Event
from pynostr.filters import Filters, FiltersList
from pynostr.key import PrivateKey
from pynostr.subscription import Subscription
from tornado.websocket import websocket_connect

LISTING = 30402


async def answer(socket):
    return json.loads(await asyncio.wait_for(socket.read_message(), 30))


async def publish(socket):
    key = PrivateKey()
    event = Event("", pubkey=key.public_key.hex(), kind=LISTING)
    event.tags = [
        ["d", "an exit of others"],
        ["title", "An exit of others"],
        ["t", "europa-protocol"],
        ["t", "wireguard"],
        ["price", "150", "sat", "GiB"],
        ["payment", "lightning", "operator@example.com", "lnurl-pay"],
        ["location", "SE"],
        ["expiration", str(int(time.time()) + 3600)],
    ]
    event.sign(key.hex())
    await socket.write_message(event.to_message())
    kind, identifier, stored, said = await answer(socket)
    assert (kind, identifier, stored) == ("OK", event.id, True), said
    print(event.id)


async def read(socket):
    wanted = Filters(kinds=[LISTING])
    wanted.add_arbitrary_tag("t", ["europa-protocol"])
    request = Subscription("listings", FiltersList([wanted])).to_message()
    await socket.write_message(request)
    while True:
        message = await answer(socket)
        if message[0] == "EOSE":
            return
        # The identifier is computed from what the event says.
        event = Event.from_dict(message[2])
        assert event.id == message[2]["id"] and event.verify(), message
        print(event.id)


async def main(url, what):
    socket = await websocket_connect(url)
    await {"publish": publish, "read": read}[what](socket)
    socket.close()


asyncio.run(main(*sys.argv[1:]))
