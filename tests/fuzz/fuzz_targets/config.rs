//! URLs: whatever is written, the answer is an endpoint or an error that shows no password.
#![no_main]
use iokernel::config::{Url, redact};
use iokernel::proto::{Limits, TABLE, scheme};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let default_port = |name: &str| scheme(name).map(|scheme| scheme.default_port);
    for text in [text.to_string(), format!("{}://{text}", TABLE[0].name)] {
        let _ = redact(&text);
        let Ok(mut url) = Url::parse(&text, default_port) else { continue };
        let _ = url.address.to_string();
        let row = scheme(&url.scheme).expect("a URL that parses has a known scheme");
        if let Ok(driver) = (row.open)(&mut url, &Limits::default()) {
            let _ = (driver.client(), driver.server());
        }
        let _ = url.options.finish();
    }
});
