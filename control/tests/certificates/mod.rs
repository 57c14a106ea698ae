//! Authorities, and certificates that they sign, made for a test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{BasicConstraints, KeyUsage, SubjectAlternativeName};
use openssl::x509::{X509, X509Builder, X509Name};

/// Somebody who signs.
pub(crate) struct Authority {
    pub(crate) certificate: X509,
    key: PKey<Private>,
}

/// Files of a certificate and its key.
pub(crate) struct Files {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    /// Signed by itself, or by another one.
    pub(crate) fn new(name: &str, above: Option<&Authority>) -> Authority {
        let key = new_key();
        let mut builder = begin(name, &key, above.map(|it| &it.certificate), -3600, 86_400);
        builder.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
        builder.append_extension(KeyUsage::new().critical().key_cert_sign().crl_sign().build().unwrap()).unwrap();
        builder.sign(above.map_or(&key, |it| &it.key), MessageDigest::sha256()).unwrap();
        Authority { certificate: builder.build(), key }
    }

    /// Writes the certificate to `folder`.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> PathBuf {
        let file = folder.join(name);
        fs::write(&file, self.certificate.to_pem().unwrap()).unwrap();
        file
    }

    /// A certificate for `name`, good from and until so many seconds from now; for a server if it has addresses.
    pub(crate) fn issue(&self, folder: &Path, name: &str, seconds: (i64, i64), addresses: &[&str]) -> Files {
        let key = new_key();
        let mut builder = begin(name, &key, Some(&self.certificate), seconds.0, seconds.1);
        if !addresses.is_empty() {
            let mut names = SubjectAlternativeName::new();
            for address in addresses {
                names.ip(address);
            }
            let context = builder.x509v3_context(Some(&self.certificate), None);
            let names = names.build(&context).unwrap();
            builder.append_extension(names).unwrap();
        }
        builder.sign(&self.key, MessageDigest::sha256()).unwrap();
        let files =
            Files { certificate: folder.join(format!("{name}.pem")), key: folder.join(format!("{name}-key.pem")) };
        fs::write(&files.certificate, builder.build().to_pem().unwrap()).unwrap();
        fs::write(&files.key, key.private_key_to_pem_pkcs8().unwrap()).unwrap();
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).unwrap();
        files
    }
}

fn new_key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

fn begin(name: &str, key: &PKey<Private>, issuer: Option<&X509>, from_s: i64, until_s: i64) -> X509Builder {
    let mut subject = X509Name::builder().unwrap();
    // A name that begins with `O=` is that of an organisation, and there is no common name.
    let (kind, name) = name.strip_prefix("O=").map_or(("CN", name), |rest| ("O", rest));
    subject.append_entry_by_text(kind, name).unwrap();
    let subject = subject.build();
    let mut serial = BigNum::new().unwrap();
    serial.rand(120, MsbOption::MAYBE_ZERO, false).unwrap();
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    builder.set_serial_number(&serial.to_asn1_integer().unwrap()).unwrap();
    builder.set_subject_name(&subject).unwrap();
    builder.set_issuer_name(issuer.map_or(&*subject, |it| it.subject_name())).unwrap();
    builder.set_not_before(&Asn1Time::from_unix(now + from_s).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::from_unix(now + until_s).unwrap()).unwrap();
    builder.set_pubkey(key).unwrap();
    builder
}
