//! Frames about the connection, and windows.

use super::super::error::Flood;
use super::streams::interest;
use super::{ALIVE_PING, DRAIN_PING, Draining, Machine, Role};
use crate::http2::ErrorCode;
use crate::http2::frame::{
    self, DEFAULT_MAX_FRAME_BYTES, FrameError, FrameHeader, Kind, LARGEST_MAX_FRAME_BYTES, MAX_WINDOW, flags, setting,
};

impl Machine {
    /// A whole frame other than DATA.
    pub(super) fn frame(&mut self, header: FrameHeader, payload: &[u8]) {
        match header.kind {
            Kind::Headers => self.headers(header, payload),
            Kind::Continuation => self.continuation(header, payload),
            Kind::WindowUpdate => self.window_update(header, payload),
            Kind::ResetStream => self.reset_stream(header, payload),
            Kind::Settings => self.settings(header, payload),
            Kind::Ping => self.ping(header, payload),
            Kind::GoAway => self.go_away(header, payload),
            Kind::Priority => self.priority(header, payload),
            // We never allow it.
            Kind::PushPromise => self.broken(ErrorCode::PROTOCOL_ERROR, "PUSH_PROMISE was not allowed"),
            Kind::Data | Kind::Unknown(_) => {}
        }
    }

    fn settings(&mut self, header: FrameHeader, payload: &[u8]) {
        if header.stream != 0 {
            return self.broken(ErrorCode::PROTOCOL_ERROR, "SETTINGS on a stream");
        }
        if header.has(flags::ACK) {
            if !payload.is_empty() {
                return self.broken(ErrorCode::FRAME_SIZE_ERROR, "SETTINGS acknowledged with a payload");
            }
            self.is_acknowledged = true;
            return;
        }
        if !self.spend(Flood::Settings) {
            return;
        }
        let settings = match frame::settings(payload) {
            Ok(settings) => settings,
            Err(error) => return self.broken(error.code(), "malformed SETTINGS"),
        };
        if !self.peer.is_known {
            self.peer.is_known = true;
            // Who names no limit has none.
            self.peer.max_streams = u32::MAX;
        }
        let mut window = self.peer.initial_window;
        for (name, value) in settings {
            match name {
                setting::HEADER_TABLE_SIZE => self.encoder.set_limit(value),
                setting::ENABLE_PUSH if value > u32::from(self.role == Role::Server) => {
                    return self.broken(ErrorCode::PROTOCOL_ERROR, "SETTINGS_ENABLE_PUSH out of range");
                }
                // It cannot be taken back (RFC 8441 section 3). Of a client it means nothing.
                setting::ENABLE_CONNECT_PROTOCOL if value > 1 || value == 0 && self.peer.takes_tunnels => {
                    return self.broken(ErrorCode::PROTOCOL_ERROR, "SETTINGS_ENABLE_CONNECT_PROTOCOL out of range");
                }
                setting::ENABLE_CONNECT_PROTOCOL => self.peer.takes_tunnels = value == 1,
                setting::MAX_CONCURRENT_STREAMS => self.peer.max_streams = value,
                setting::INITIAL_WINDOW_SIZE if value > MAX_WINDOW => {
                    return self.broken(ErrorCode::FLOW_CONTROL_ERROR, "SETTINGS_INITIAL_WINDOW_SIZE out of range");
                }
                setting::INITIAL_WINDOW_SIZE => window = value,
                setting::MAX_FRAME_SIZE if !(DEFAULT_MAX_FRAME_BYTES..=LARGEST_MAX_FRAME_BYTES).contains(&value) => {
                    return self.broken(ErrorCode::PROTOCOL_ERROR, "SETTINGS_MAX_FRAME_SIZE out of range");
                }
                setting::MAX_FRAME_SIZE => self.peer.max_frame = value,
                _ => {}
            }
        }
        self.out.settings_ack();
        self.check_owed();
        self.set_initial_window(window);
    }

    /// Windows of open streams follow, even below nothing (RFC 9113 section 6.9.2).
    fn set_initial_window(&mut self, window: u32) {
        let change = i64::from(window) - i64::from(self.peer.initial_window);
        self.peer.initial_window = window;
        if change == 0 {
            return;
        }
        for at in 0..self.streams.open() {
            let Some(stream) = self.streams.live_at(at).and_then(|(_, slot)| self.streams.get_mut(slot)) else { break };
            match i32::try_from(i64::from(stream.send_window) + change) {
                Ok(window) => stream.send_window = window,
                Err(_) => return self.broken(ErrorCode::FLOW_CONTROL_ERROR, "a window beyond 2^31-1 by SETTINGS"),
            }
        }
        if change > 0 {
            self.starved_since = None;
            self.wake_writers();
        }
    }

    fn ping(&mut self, header: FrameHeader, payload: &[u8]) {
        let opaque = match frame::ping(payload) {
            Ok(opaque) => opaque,
            Err(error) => return self.broken(error.code(), "malformed PING"),
        };
        if header.stream != 0 {
            return self.broken(ErrorCode::PROTOCOL_ERROR, "PING on a stream");
        }
        if header.has(flags::ACK) {
            if opaque == DRAIN_PING && matches!(self.draining, Draining::Announced(_)) {
                self.name_last();
            } else if opaque != ALIVE_PING {
                // An answer to nothing.
                self.spend(Flood::Ping);
            }
            return;
        }
        if self.spend(Flood::Ping) {
            self.out.ping_ack(opaque);
            self.check_owed();
        }
    }

    fn priority(&mut self, header: FrameHeader, payload: &[u8]) {
        if header.stream == 0 {
            return self.broken(ErrorCode::PROTOCOL_ERROR, "PRIORITY on no stream");
        }
        if let Err(error) = frame::check_priority(&header, payload) {
            let fault = if matches!(error, FrameError::Length(..)) { "PRIORITY of a wrong size" } else { "dependency" };
            return match self.streams.find(header.stream) {
                Some(slot) => self.break_stream(slot, error.code()),
                None => self.broken(error.code(), fault),
            };
        }
        self.spend(Flood::Priority);
    }

    fn window_update(&mut self, header: FrameHeader, payload: &[u8]) {
        let increment = match frame::number(&header, payload) {
            Ok(increment) => increment,
            Err(error) => return self.broken(error.code(), "malformed WINDOW_UPDATE"),
        };
        if !self.spend(Flood::WindowUpdate) {
            return;
        }
        if header.stream == 0 {
            let window = self.send_window.checked_add_unsigned(increment);
            return match window {
                _ if increment == 0 => self.broken(ErrorCode::PROTOCOL_ERROR, "WINDOW_UPDATE by nothing"),
                Some(window) => {
                    self.send_window = window;
                    self.starved_since = None;
                    self.wake_writers();
                }
                None => self.broken(ErrorCode::FLOW_CONTROL_ERROR, "the connection's window beyond 2^31-1"),
            };
        }
        if self.is_idle(header.stream) {
            return self.broken(ErrorCode::PROTOCOL_ERROR, "WINDOW_UPDATE on no stream");
        }
        let Some(slot) = self.streams.find(header.stream) else { return };
        let Some(stream) = self.streams.get_mut(slot) else { return };
        match stream.send_window.checked_add_unsigned(increment) {
            _ if increment == 0 => self.break_stream(slot, ErrorCode::PROTOCOL_ERROR),
            Some(window) => {
                stream.send_window = window;
                self.starved_since = None;
                if self.capacity(slot) > 0 {
                    self.streams.event(slot, interest::WRITE);
                }
            }
            None => self.break_stream(slot, ErrorCode::FLOW_CONTROL_ERROR),
        }
    }
}
