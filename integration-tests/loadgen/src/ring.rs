//! Frames of a publisher, encoded once: before each use only stamp and packet id are rewritten.

/// Where one frame lies in the ring, and what in it is rewritten.
#[derive(Clone, Copy)]
pub struct Frame {
    pub start: u32,
    pub end: u32,
    /// Offset of the MQTT packet id; 0 for none.
    pub packet_id: u32,
    /// Offset of the payload, which begins with the stamp.
    pub payload: u32,
    /// Which of the publisher's streams it belongs to.
    pub stream: u32,
}

#[derive(Default)]
pub struct Ring {
    pub bytes: Vec<u8>,
    pub frames: Vec<Frame>,
}

impl Ring {
    /// Appends a frame; `packet_id` and `payload` are offsets in it.
    pub fn push(&mut self, frame: &[u8], packet_id: usize, payload: usize, stream: usize) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(frame);
        self.frames.push(Frame {
            start: start as u32,
            end: self.bytes.len() as u32,
            packet_id: if packet_id > 0 { (start + packet_id) as u32 } else { 0 },
            payload: (start + payload) as u32,
            stream: stream as u32,
        });
    }

    pub fn len(&self) -> usize {
        self.frames.len()
    }
}
