use super::*;

#[test]
fn a_refused_value_leaves_the_settings() {
    // SAFETY: literals, and a handle that is used and freed once.
    unsafe {
        let options = cenotaph_options_new(c"game".as_ptr(), c"1".as_ptr());
        assert_eq!(cenotaph_options_set_spool(options, c"/s".as_ptr()), cenotaph_status::Ok);
        assert_eq!(cenotaph_options_set_audience(options, 2), cenotaph_status::InvalidArgument);
        assert_eq!(cenotaph_options_set_spool(options, std::ptr::null()), cenotaph_status::NullArgument);
        assert_eq!(
            cenotaph_options_add_destination(options, c"crashpad=http://x".as_ptr()),
            cenotaph_status::InvalidConfig
        );
        let config = handle::lend(options).unwrap().config.clone().unwrap().validate().unwrap();
        assert_eq!(config.spool, std::path::Path::new("/s"));
        assert_eq!(config.audience, Audience::General);
        assert!(config.destinations.is_empty());
        cenotaph_options_free(options);
        cenotaph_options_free(std::ptr::null_mut());
    }
}

#[test]
fn every_setter_sets() {
    // SAFETY: literals, and a handle that is used and taken once.
    let config = unsafe {
        let options = cenotaph_options_new(c"game".as_ptr(), c"1.2".as_ptr());
        let done = [
            cenotaph_options_set_spool(options, c"/s".as_ptr()),
            cenotaph_options_add_destination(options, c"crashpad=https://a/b".as_ptr()),
            cenotaph_options_add_destination(options, c"backtrace=https://c/d".as_ptr()),
            cenotaph_options_add_certificate_authority(options, c"/ca.pem".as_ptr()),
            cenotaph_options_set_audience(options, cenotaph_audience::General as i32),
            cenotaph_options_set_consent_policy(options, cenotaph_consent_policy::NotRequired as i32),
            cenotaph_options_set_detail(options, cenotaph_detail::Pointers as i32),
            cenotaph_options_set_identity_off(options),
            cenotaph_options_set_identity_session(options),
            cenotaph_options_set_identity_epoch(options, 7),
            cenotaph_options_set_environment(options, c"beta".as_ptr()),
            cenotaph_options_set_tenant(options, c"t".as_ptr()),
            cenotaph_options_set_release_at(options, cenotaph_release_at::Spooled as i32),
            cenotaph_options_set_deadline_ms(options, 5),
            cenotaph_options_set_linger_ms(options, 6),
            cenotaph_options_set_log(options, c"/l".as_ptr()),
            cenotaph_options_add_secret(options, c"alice".as_ptr()),
            cenotaph_options_set_helper(options, c"/usr/libexec/cenotaph-monitor".as_ptr()),
            cenotaph_options_add_plugin(options, c"/opt/game/one.so".as_ptr()),
            cenotaph_options_add_plugin(options, c"/opt/game/two.so".as_ptr()),
            cenotaph_options_set_panics(options, false),
        ];
        assert_eq!(done, [cenotaph_status::Ok; 21]);
        assert_eq!(cenotaph_options_set_identity_epoch(options, 0), cenotaph_status::InvalidArgument);
        handle::take(options).unwrap().into_config().unwrap().validate().unwrap()
    };
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    assert_eq!((config.application.as_str(), config.version.as_str()), ("game", "1.2"));
    assert_eq!((text(&config.spool), text(config.log.as_deref().unwrap())), ("/s".into(), "/l".into()));
    assert_eq!(config.destinations[0], Destination::crashpad("https://a/b").unwrap());
    assert_eq!(config.destinations[1], Destination::backtrace("https://c/d").unwrap());
    assert_eq!(text(&config.certificate_authorities[0]), "/ca.pem");
    assert_eq!((config.audience, config.consent_policy), (Audience::General, ConsentPolicy::NotRequired));
    assert_eq!((config.detail, config.identity), (Detail::Pointers, Identity::Epoch { days: 7 }));
    assert_eq!((config.environment.as_str(), config.tenant.as_str()), ("beta", "t"));
    assert_eq!((config.release_at, config.panics), (ReleaseAt::Spooled, false));
    assert_eq!((config.deadline_ms, config.linger_ms), (5, 6));
    assert_eq!(config.secrets, ["alice"]);
    assert_eq!(text(config.helper.as_deref().unwrap()), "/usr/libexec/cenotaph-monitor");
    let plugins: Vec<_> = config.plugins.iter().map(|path| text(path)).collect();
    assert_eq!(plugins, ["/opt/game/one.so", "/opt/game/two.so"]);
}
