"""pika, as a user would use it.

    amqp_client.py publish PORT KEY PAYLOAD        to amq.topic, confirmed, with properties
    amqp_client.py consume PORT BINDING COUNT      a queue of its own on amq.topic; a line of JSON a message
"""
import json
import sys

import pika

task, port, key, *rest = sys.argv[1:]
connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", int(port)))
channel = connection.channel()


def publish():
    channel.confirm_delivery()
    properties = pika.BasicProperties(
        content_type="text/plain", correlation_id="c-1", headers={"site": "north"}, delivery_mode=2)
    channel.basic_publish("amq.topic", key, rest[0].encode(), properties, mandatory=True)


def consume():
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, "amq.topic", key)
    left = int(rest[0])
    print("ready", flush=True)
    for method, properties, body in channel.consume(queue):
        print(json.dumps({
            "address": method.routing_key,
            "payload": body.decode(),
            "content_type": properties.content_type,
            "correlation": properties.correlation_id,
            "site": (properties.headers or {}).get("site"),
        }), flush=True)
        channel.basic_ack(method.delivery_tag)
        left -= 1
        if left == 0:
            break


{"publish": publish, "consume": consume}[task]()
connection.close()
