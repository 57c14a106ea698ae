//! A port that comes later: a worker may be set up, and its table filled, while somebody else still has the device.

use rtrb::{Consumer, Producer, RingBuffer};

use super::{Frame, Port};

/// A port without a device until one is handed to it. Until then nothing comes in and nothing goes out.
pub struct Late<P> {
    device: Option<P>,
    coming: Consumer<P>,
}

/// The other end of a [`Late`] port: hands it its device, once.
pub struct Delivery<P>(Producer<P>);

impl<P> Late<P> {
    /// A port that waits, and the way to end that.
    pub fn new() -> (Late<P>, Delivery<P>) {
        let (producer, coming) = RingBuffer::new(1);
        (Late { device: None, coming }, Delivery(producer))
    }
}

impl<P> Delivery<P> {
    /// The device is the port's from its next turn on.
    pub fn hand_over(mut self, device: P) {
        // There is room: this is the only one that is ever put in.
        let _ = self.0.push(device);
    }
}

impl<F: Frame, P: Port<F>> Port<F> for Late<P> {
    #[inline]
    fn receive(&mut self, burst: &mut Vec<F>) {
        match &mut self.device {
            Some(device) => device.receive(burst),
            None => self.device = self.coming.pop().ok(),
        }
    }

    #[inline]
    fn transmit(&mut self, burst: &mut Vec<F>) {
        if let Some(device) = &mut self.device {
            device.transmit(burst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::memory::{HeapFrame, MemoryPort};

    #[test]
    fn nothing_moves_before_the_device_is_there_and_everything_after() {
        let (mut port, delivery) = Late::new();
        let (device, wire) = MemoryPort::new();
        wire.send(&[1; 60]);
        let mut burst: Vec<HeapFrame> = Vec::with_capacity(4);
        port.receive(&mut burst);
        assert!(burst.is_empty());
        let mut sent = vec![HeapFrame::new(&[2; 60])];
        port.transmit(&mut sent);
        assert_eq!((sent.len(), wire.receive()), (1, None), "it is still the sender's");
        delivery.hand_over(device);
        // The turn in which it comes brings nothing yet.
        port.receive(&mut burst);
        port.receive(&mut burst);
        assert_eq!(burst.iter().map(|frame| frame.bytes().to_vec()).collect::<Vec<_>>(), [vec![1; 60]]);
        port.transmit(&mut sent);
        assert_eq!((sent.len(), wire.receive()), (0, Some(vec![2; 60])));
    }
}
