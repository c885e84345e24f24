"""paho-mqtt, as a user would use it.

    mqtt_client.py publish PORT TOPIC PAYLOAD      QoS 1, with properties; ends when it is acknowledged
    mqtt_client.py consume PORT FILTER COUNT       a line of JSON a message
    mqtt_client.py respond PORT TOPIC              answers one request, in capitals
"""
import json
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

task, port, topic, *rest = sys.argv[1:]
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)


def fail(client, userdata, *reason):
    print("failed:", *reason, file=sys.stderr)


client.on_connect_fail = fail


def publish():
    properties = Properties(PacketTypes.PUBLISH)
    properties.ContentType = "text/plain"
    properties.CorrelationData = b"c-1"
    properties.UserProperty = ("site", "north")
    client.connect("127.0.0.1", int(port))
    client.loop_start()
    client.publish(topic, rest[0], qos=1, properties=properties).wait_for_publish(20)
    client.disconnect()
    client.loop_stop()


def consume():
    left = int(rest[0])

    def on_message(client, userdata, message):
        nonlocal left
        properties = message.properties
        print(json.dumps({
            "address": message.topic,
            "payload": message.payload.decode(),
            "content_type": getattr(properties, "ContentType", None),
            "correlation": getattr(properties, "CorrelationData", b"").decode(),
            "site": dict(getattr(properties, "UserProperty", [])).get("site"),
        }), flush=True)
        left -= 1
        if left == 0:
            client.disconnect()

    client.on_message = on_message
    client.on_subscribe = lambda *_: print("ready", flush=True)
    client.connect("127.0.0.1", int(port))
    client.subscribe(topic, qos=1)
    client.loop_forever()


def respond():
    def on_message(client, userdata, request):
        properties = Properties(PacketTypes.PUBLISH)
        properties.CorrelationData = request.properties.CorrelationData
        answer = request.payload.decode().upper()
        client.publish(request.properties.ResponseTopic, answer, qos=1, properties=properties)

    client.on_message = on_message
    client.on_publish = lambda *_: client.disconnect()
    client.on_subscribe = lambda *_: print("ready", flush=True)
    client.connect("127.0.0.1", int(port))
    client.subscribe(topic, qos=1)
    client.loop_forever()


{"publish": publish, "consume": consume, "respond": respond}[task]()
