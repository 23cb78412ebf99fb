//! `include/cenotaph_pmodule.h` in Rust: the same structures, member for member. The header says what each means.
#![allow(missing_docs, reason = "the header describes them")]

use std::ffi::{c_char, c_void};

/// `CENOTAPH_PMODULE_ABI`.
pub(super) const ABI: u32 = 1;
/// The entry function's name.
pub(super) const ENTRY: &std::ffi::CStr = c"cenotaph_pmodule_entry";

/// `enum cenotaph_pmodule_status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum Status {
    Ok = 0,
    Null = 1,
    Invalid = 2,
    NotFound = 3,
    Short = 4,
    NotNow = 5,
    Fault = 6,
    Failed = -1,
}

impl Status {
    /// Its name in the header.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ok => "CENOTAPH_PMODULE_OK",
            Self::Null => "CENOTAPH_PMODULE_NULL",
            Self::Invalid => "CENOTAPH_PMODULE_INVALID",
            Self::NotFound => "CENOTAPH_PMODULE_NOT_FOUND",
            Self::Short => "CENOTAPH_PMODULE_SHORT",
            Self::NotNow => "CENOTAPH_PMODULE_NOT_NOW",
            Self::Fault => "CENOTAPH_PMODULE_FAULT",
            Self::Failed => "CENOTAPH_PMODULE_FAILED",
        }
    }
}

/// `enum cenotaph_pmodule_kind`.
pub(super) mod kind {
    pub(in crate::pmodule) const BOOL: u32 = 0;
    pub(in crate::pmodule) const INTEGER: u32 = 1;
    pub(in crate::pmodule) const NUMBER: u32 = 2;
    pub(in crate::pmodule) const TEXT: u32 = 3;
}

/// A structure that a host function fills: it begins with its size as a `u32`, holds no references that Rust would
/// have to keep valid, and all-zero is a value of it.
///
/// # Safety
/// All of that must hold.
pub(super) unsafe trait Sized32: Copy {}

macro_rules! structures {
    ($($(#[$meta:meta])* $name:ident { $($field:ident: $type:ty,)* })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy)]
        #[repr(C)]
        pub(super) struct $name {
            $(pub(super) $field: $type,)*
        }
    )*};
}

structures! {
    Text {
        data: *const c_char,
        length: usize,
    }
    Value {
        kind: u32,
        reserved: u32,
        integer: i64,
        number: f64,
        text: Text,
    }
    FrameFilter {
        module: Text,
        symbol: Text,
        faulting: u32,
        reserved: u32,
    }
    Thread {
        size: u32,
        id: i32,
        crashed: u32,
        signal: i32,
        name: Text,
    }
    Frame {
        size: u32,
        thread: i32,
        crashed: u32,
        number: u32,
        instruction: u64,
        offset: u64,
        module: Text,
        symbol: Text,
    }
    Region {
        size: u32,
        stack_of: i32,
        address: u64,
        bytes: *const u8,
        length: usize,
    }
    Module {
        size: u32,
        deleted: u32,
        start: u64,
        end: u64,
        path: Text,
        name: Text,
        build_id: *const u8,
        build_id_length: usize,
    }
    Map {
        size: u32,
        permissions: u32,
        start: u64,
        end: u64,
        offset: u64,
        name: Text,
    }
    Crash {
        size: u32,
        signal: i32,
        code: i32,
        process: i32,
        thread: i32,
        has_address: u32,
        address: u64,
    }
    Reason {
        size: u32,
        cause: u32,
        signal: i32,
        code: i32,
        message: Text,
        location: Text,
    }
    Attribute {
        size: u32,
        truncated: u32,
        key: Text,
        value: Value,
    }
    Breadcrumb {
        size: u32,
        level: u32,
        time_ms: u64,
        category: Text,
        message: Text,
    }
}

macro_rules! sized {
    ($($name:ident)*) => {$(
        // SAFETY: integers and raw pointers only, with a `u32` called `size` at the start.
        unsafe impl Sized32 for $name {}
    )*};
}
sized!(Thread Frame Region Module Map Crash Reason Attribute Breadcrumb);

/// The first argument of every function: the host's table. The host finds what it needs without it.
pub(super) type HostPointer = *const Host;

structures! {
    Host {
        size: u32,
        abi: u32,
        fail: unsafe extern "C" fn(HostPointer, Text) -> i32,
        error: unsafe extern "C" fn(HostPointer) -> Text,
        read: unsafe extern "C" fn(HostPointer, u64, *mut c_void, usize, *mut usize) -> i32,
        read_string: unsafe extern "C" fn(HostPointer, u64, *mut c_char, usize, *mut usize) -> i32,
        read_register: unsafe extern "C" fn(HostPointer, i32, Text, *mut u64) -> i32,
        thread: unsafe extern "C" fn(HostPointer, usize, *mut Thread) -> i32,
        module: unsafe extern "C" fn(HostPointer, usize, *mut Module) -> i32,
        map: unsafe extern "C" fn(HostPointer, usize, *mut Map) -> i32,
        symbol: unsafe extern "C" fn(HostPointer, Text, Text, *mut u64, *mut u64) -> i32,
        symbolize: unsafe extern "C" fn(HostPointer, u64, *mut c_char, usize, *mut usize, *mut u64) -> i32,
        crash: unsafe extern "C" fn(HostPointer, *mut Crash) -> i32,
        reason: unsafe extern "C" fn(HostPointer, *mut Reason) -> i32,
        attribute: unsafe extern "C" fn(HostPointer, usize, *mut Attribute) -> i32,
        breadcrumb: unsafe extern "C" fn(HostPointer, usize, *mut Breadcrumb) -> i32,
        frame: unsafe extern "C" fn(HostPointer, usize, usize, *mut Frame) -> i32,
        detail: unsafe extern "C" fn(HostPointer, *mut u32) -> i32,
        report: unsafe extern "C" fn(HostPointer, *mut Text) -> i32,
        region: unsafe extern "C" fn(HostPointer, usize, *mut Region) -> i32,
        dump: unsafe extern "C" fn(HostPointer, *mut *const u8, *mut usize) -> i32,
        annotate: unsafe extern "C" fn(HostPointer, u32, Text) -> i32,
        set_attribute: unsafe extern "C" fn(HostPointer, Text, *const Value) -> i32,
        classify: unsafe extern "C" fn(HostPointer, Text) -> i32,
        fingerprint: unsafe extern "C" fn(HostPointer, Text) -> i32,
        add_memory: unsafe extern "C" fn(HostPointer, u64, u64) -> i32,
        blank_argument: unsafe extern "C" fn(HostPointer, usize) -> i32,
        blank_environment: unsafe extern "C" fn(HostPointer, Text) -> i32,
        keep_stack: unsafe extern "C" fn(HostPointer, i32) -> i32,
        lower_detail: unsafe extern "C" fn(HostPointer, u32) -> i32,
        blank_memory: unsafe extern "C" fn(HostPointer, u64, u64) -> i32,
        blank_register: unsafe extern "C" fn(HostPointer, i32, Text) -> i32,
        drop_stack: unsafe extern "C" fn(HostPointer, i32) -> i32,
        veto: unsafe extern "C" fn(HostPointer, Text) -> i32,
    }
}

/// A callback without an argument of its own.
pub(super) type Event = unsafe extern "C" fn(HostPointer, *mut c_void) -> i32;
/// A callback with one.
pub(super) type EventWith<T> = unsafe extern "C" fn(HostPointer, *mut c_void, *const T) -> i32;

structures! {
    Pmodule {
        size: u32,
        abi: u32,
        name: Text,
        priority: i32,
        events: u32,
        redacts: u32,
        frame_filter_count: u32,
        frame_filters: *const FrameFilter,
        user: *mut c_void,
        attach: Option<Event>,
        thread: Option<EventWith<Thread>>,
        frame: Option<EventWith<Frame>>,
        region: Option<EventWith<Region>>,
        attributes: Option<Event>,
        detach: Option<Event>,
        scrub: Option<Event>,
        verdict: Option<Event>,
    }
}

/// The entry function.
pub(super) type Entry = unsafe extern "C" fn(u32) -> *const Pmodule;

impl Text {
    /// Lends a text of ours.
    pub(super) fn lend(text: &str) -> Self {
        Self { data: text.as_ptr().cast(), length: text.len() }
    }

    /// The empty text.
    pub(super) const EMPTY: Self = Self { data: std::ptr::null(), length: 0 };
}

#[cfg(test)]
#[path = "abi_tests.rs"]
mod tests;
