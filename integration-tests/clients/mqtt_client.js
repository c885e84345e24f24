// mqtt of npm, as a user would use it.
//
//     mqtt_client.js publish PORT TOPIC PAYLOAD     QoS 1, with properties; ends when it is acknowledged
//     mqtt_client.js consume PORT FILTER COUNT      a line of JSON a message
const mqtt = require("mqtt");

const [task, port, topic, last] = process.argv.slice(2);
const client = mqtt.connect(`mqtt://127.0.0.1:${port}`, { protocolVersion: 5, reconnectPeriod: 0 });
client.on("error", (error) => {
  console.error(error);
  process.exit(1);
});

async function publish() {
  const properties = {
    contentType: "text/plain",
    correlationData: Buffer.from("c-1"),
    userProperties: { site: "north" },
  };
  await client.publishAsync(topic, last, { qos: 1, properties });
  await client.endAsync();
}

async function consume() {
  let left = Number(last);
  client.on("message", (address, payload, { properties = {} }) => {
    const { contentType, correlationData, userProperties } = properties;
    console.log(JSON.stringify({
      address,
      payload: payload.toString(),
      content_type: contentType,
      correlation: correlationData && correlationData.toString(),
      site: userProperties && userProperties.site,
    }));
    left -= 1;
    if (left === 0) client.end();
  });
  await client.subscribeAsync(topic, { qos: 1 });
  console.log("ready");
}

({ publish, consume })[task]();
