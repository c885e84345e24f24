// amqplib, as a user would use it.
//
//     amqp_client.js publish PORT KEY PAYLOAD       to amq.topic, confirmed, with properties
//     amqp_client.js consume PORT BINDING COUNT     a queue of its own on amq.topic; a line of JSON a message
const amqp = require("amqplib");

const [task, port, key, last] = process.argv.slice(2);

async function publish(connection) {
  const channel = await connection.createConfirmChannel();
  channel.publish("amq.topic", key, Buffer.from(last), {
    contentType: "text/plain",
    correlationId: "c-1",
    headers: { site: "north" },
    persistent: true,
  });
  await channel.waitForConfirms();
  await connection.close();
}

async function consume(connection) {
  const channel = await connection.createChannel();
  const { queue } = await channel.assertQueue("", { exclusive: true });
  await channel.bindQueue(queue, "amq.topic", key);
  let left = Number(last);
  await channel.consume(queue, async (message) => {
    const { contentType, correlationId, headers } = message.properties;
    console.log(JSON.stringify({
      address: message.fields.routingKey,
      payload: message.content.toString(),
      content_type: contentType,
      correlation: correlationId,
      site: headers.site,
    }));
    channel.ack(message);
    left -= 1;
    if (left === 0) {
      await channel.close();
      await connection.close();
    }
  });
  console.log("ready");
}

amqp.connect(`amqp://127.0.0.1:${port}`).then({ publish, consume }[task]);
