//! Raw bytes in, raw bytes out.

use super::*;

fn header(kind: Kind, flags: u8, stream: u32) -> FrameHeader {
    FrameHeader { length: 0, kind, flags, stream }
}

#[test]
fn a_frame_header_is_nine_bytes_both_ways() {
    let bytes = [0x01, 0x02, 0x03, 0x01, 0x25, 0x80, 0x00, 0x00, 0x07];
    let header = FrameHeader::parse(&bytes);
    assert_eq!(header, FrameHeader { length: 0x01_02_03, kind: Kind::Headers, flags: 0x25, stream: 7 });
    let mut out = Vec::new();
    header.write(&mut out);
    assert_eq!(out, [0x01, 0x02, 0x03, 0x01, 0x25, 0x00, 0x00, 0x00, 0x07], "the reserved bit is not sent");
}

#[test]
fn every_kind_has_its_number() {
    for number in 0..=255 {
        let kind = Kind::from(number);
        assert_eq!(u8::from(kind), number);
        assert_eq!(matches!(kind, Kind::Unknown(_)), number > 9);
    }
}

#[test]
fn padding_is_taken_away_and_cannot_be_more_than_the_frame() {
    let padded = header(Kind::Data, flags::PADDED, 1);
    let plain = header(Kind::Data, 0, 1);
    assert_eq!(data_range(&plain, b"abc"), Ok(0..3));
    assert_eq!(data_range(&padded, b"\x02abc\0\0"), Ok(1..4));
    assert_eq!(data_range(&padded, b"\x00"), Ok(1..1));
    assert_eq!(data_range(&padded, b"\x02\0\0"), Ok(1..1));
    for (payload, code) in [
        (&b""[..], ErrorCode::FRAME_SIZE_ERROR),
        (b"\x01", ErrorCode::PROTOCOL_ERROR),
        (b"\x03ab", ErrorCode::PROTOCOL_ERROR),
        (b"\xffab", ErrorCode::PROTOCOL_ERROR),
    ] {
        assert_eq!(data_range(&padded, payload).map_err(FrameError::code), Err(code), "{payload:?}");
    }
}

#[test]
fn a_priority_in_headers_is_checked_and_left_out() {
    let plain = header(Kind::Headers, flags::PRIORITY, 3);
    let padded = header(Kind::Headers, flags::PRIORITY | flags::PADDED, 3);
    assert_eq!(headers_range(&plain, b"\0\0\0\0\x10abc"), Ok(5..8));
    assert_eq!(headers_range(&plain, b"\x80\0\0\x01\x10"), Ok(5..5));
    assert_eq!(headers_range(&padded, b"\x01\0\0\0\0\x10abc\0"), Ok(6..9));
    assert_eq!(headers_range(&header(Kind::Headers, 0, 3), b"abc"), Ok(0..3));
    for (header, payload, code) in [
        (plain, &b"\0\0\0\0"[..], ErrorCode::FRAME_SIZE_ERROR),
        (padded, b"\x02\0\0\0\0\0\0", ErrorCode::FRAME_SIZE_ERROR),
        (plain, b"\0\0\0\x03\x10abc", ErrorCode::PROTOCOL_ERROR),
        (plain, b"\x80\0\0\x03\x10abc", ErrorCode::PROTOCOL_ERROR),
    ] {
        assert_eq!(headers_range(&header, payload).map_err(FrameError::code), Err(code), "{payload:?}");
    }
    let priority = header(Kind::Priority, 0, 3);
    assert_eq!(check_priority(&priority, b"\0\0\0\x01\x10"), Ok(()));
    assert_eq!(check_priority(&priority, b"\0\0\0\x03\x10"), Err(FrameError::DependsOnItself(3)));
    assert!(check_priority(&priority, b"\0\0\0\x01").is_err());
}

#[test]
fn control_payloads_have_their_length() {
    let list: Vec<_> = settings(b"\0\x04\0\0\xff\xff\0\x02\0\0\0\0").expect("two settings").collect();
    assert_eq!(list, [(setting::INITIAL_WINDOW_SIZE, 65_535), (setting::ENABLE_PUSH, 0)]);
    assert_eq!(settings(b"").expect("none").count(), 0);
    assert!(settings(b"\0\x04\0\0\xff").is_err());
    assert_eq!(number(&header(Kind::WindowUpdate, 0, 1), b"\x80\0\0\x05"), Ok(5));
    assert_eq!(number(&header(Kind::ResetStream, 0, 1), b"\x80\0\0\x05"), Ok(0x8000_0005));
    assert!(number(&header(Kind::ResetStream, 0, 1), b"\0\0\x05").is_err());
    assert_eq!(ping(b"12345678"), Ok(*b"12345678"));
    assert!(ping(b"123456789").is_err());
    assert_eq!(go_away(b"\x80\0\0\x05\0\0\0\x0bcalm"), Ok((5, ErrorCode::ENHANCE_YOUR_CALM)));
    assert!(go_away(b"\0\0\0\x05\0\0\0").is_err());
}

#[test]
fn what_is_written_reads_back() {
    let mut out = Vec::new();
    write_settings(&[(setting::MAX_FRAME_SIZE, 16_384), (setting::ENABLE_PUSH, 0)], &mut out);
    let (head, payload) = out.split_first_chunk().expect("a frame");
    assert_eq!(FrameHeader::parse(head).length as usize, payload.len());
    assert_eq!(settings(payload).expect("settings").next(), Some((setting::MAX_FRAME_SIZE, 16_384)));
    out.clear();
    write_go_away(9, ErrorCode::NO_ERROR, "drain", &mut out);
    let (head, payload) = out.split_first_chunk().expect("a frame");
    assert_eq!(FrameHeader::parse(head), FrameHeader { length: 13, kind: Kind::GoAway, flags: 0, stream: 0 });
    assert_eq!(go_away(payload), Ok((9, ErrorCode::NO_ERROR)));
    out.clear();
    write_ping(*b"12345678", true, &mut out);
    write_window_update(3, 70_000, &mut out);
    write_reset(3, ErrorCode::CANCEL, &mut out);
    write_settings_ack(&mut out);
    assert_eq!(
        out,
        b"\0\0\x08\x06\x01\0\0\0\x0012345678\0\0\x04\x08\0\0\0\0\x03\0\x01\x11\x70\0\0\x04\x03\0\0\0\0\x03\0\0\0\x08\
          \0\0\0\x04\x01\0\0\0\0"
    );
}

#[test]
fn a_long_block_goes_on_in_continuations() {
    for (length, frames) in [(0, 1), (1, 1), (10, 1), (11, 2), (20, 2), (21, 3)] {
        let block: Vec<u8> = (0..length).collect();
        let mut out = Vec::new();
        write_headers(5, &block, true, 10, &mut out);
        let (mut rest, mut seen, mut count) = (&out[..], Vec::new(), 0);
        while let Some((head, after)) = rest.split_first_chunk() {
            let header = FrameHeader::parse(head);
            let (payload, after) = after.split_at(header.length as usize);
            seen.extend_from_slice(payload);
            rest = after;
            count += 1;
            assert_eq!(header.stream, 5);
            assert_eq!(header.kind, if count == 1 { Kind::Headers } else { Kind::Continuation });
            assert_eq!(header.has(flags::END_HEADERS), rest.is_empty());
            assert_eq!(header.has(flags::END_STREAM), count == 1);
        }
        assert_eq!((seen, count), (block, frames));
    }
}
