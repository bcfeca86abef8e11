//! One certificate, from the account to the file.

use std::path::Path;

use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Identifier, NewAccount,
    NewOrder, Order, OrderStatus, Problem, RetryPolicy,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use vestnik_server::Challenges;

use super::authority::Https;
use crate::config::{Acme, Proof};
use crate::keygen::replace_private;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum ObtainError {
    /// The authority does not answer, or not as the protocol wants it.
    #[error("the authority cannot be used: {0}")]
    Authority(instant_acme::Error),
    /// It says no.
    #[error("the authority refuses: {0}")]
    Refused(Box<Problem>),
    /// It did not see what it asked for.
    #[error("the authority was not convinced that the names lead here: {0}")]
    Unproven(String),
    /// It offers no proof of the kind that is wanted.
    #[error("the authority does not take {kind} for {name}")]
    ProofNotOffered { kind: &'static str, name: String },
    /// A key or a request cannot be made.
    #[error("cannot make a key: {0}")]
    Key(String),
    /// A file cannot be read or written.
    #[error("{path}: {text}")]
    File { path: String, text: String },
}

impl ObtainError {
    /// What the administrator can do.
    pub(super) fn hint(&self, acme: &Acme) -> String {
        match self {
            Self::Authority(_) => format!(
                "{} must be reachable from here, and its certificate be signed by {}",
                acme.directory,
                match acme.authorities {
                    Some(_) => "one of acme.authorities",
                    None => "a public authority, or name its own in acme.authorities",
                }
            ),
            Self::Refused(_) => "see what it says; `vestnik check` shows what is asked for".into(),
            Self::Unproven(_) => format!(
                "port {} of each name must lead to this server from the internet, over IPv6 too where the name has such an address; acme.challenge chooses another port",
                acme.proof.port()
            ),
            Self::ProofNotOffered { .. } => "choose the other kind with acme.challenge".into(),
            Self::Key(_) => "check the system's random device".into(),
            Self::File { .. } => format!(
                "the user who runs vestnik must be able to read and write {}",
                acme.folder.display()
            ),
        }
    }
}

impl From<instant_acme::Error> for ObtainError {
    fn from(error: instant_acme::Error) -> Self {
        match error {
            instant_acme::Error::Api(problem) => Self::Refused(Box::new(problem)),
            error => Self::Authority(error),
        }
    }
}

impl From<rcgen::Error> for ObtainError {
    fn from(error: rcgen::Error) -> Self {
        Self::Key(error.to_string())
    }
}

fn file_error(path: &Path, error: &dyn std::fmt::Display) -> ObtainError {
    ObtainError::File { path: path.display().to_string(), text: error.to_string() }
}

/// What an authority calls an account that it does not know.
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// Obtains a certificate and puts it into its file.
pub(super) async fn obtain(acme: &Acme, challenges: &Challenges) -> Result<(), ObtainError> {
    let names: Vec<_> = acme.names.iter().cloned().map(Identifier::Dns).collect();
    let account = account(acme).await?;
    let mut order = match account.new_order(&NewOrder::new(&names)).await {
        Err(instant_acme::Error::Api(problem)) if problem.r#type.as_deref() == Some(NO_ACCOUNT) => {
            tracing::warn!(directory = acme.directory, "the authority has lost our account");
            new_account(acme).await?.new_order(&NewOrder::new(&names)).await?
        }
        order => order?,
    };
    if order.state().status == OrderStatus::Pending {
        prove(acme, challenges, &mut order).await?;
    }
    let key = rcgen::KeyPair::generate()?;
    let mut params = rcgen::CertificateParams::new(acme.names.clone())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    order.finalize_csr(params.serialize_request(&key)?.der()).await?;
    let chain = order.poll_certificate(&PATIENCE).await?;
    let path = acme.certificate();
    let text = format!("{}{chain}", key.serialize_pem());
    replace_private(&path, text.as_bytes()).map_err(|error| file_error(&path, &error))
}

/// How long an authority may look for a proof, and sign.
const PATIENCE: RetryPolicy = RetryPolicy::new().timeout(std::time::Duration::from_secs(120));

fn https(acme: &Acme) -> Result<Box<Https>, ObtainError> {
    let https = Https::new(acme.authorities.as_deref());
    https
        .map(Box::new)
        .map_err(|error| ObtainError::Authority(instant_acme::Error::Other(error.into())))
}

/// The account that is kept, or a new one.
async fn account(acme: &Acme) -> Result<Account, ObtainError> {
    let path = acme.account();
    match std::fs::read(&path) {
        Ok(kept) => {
            let credentials: AccountCredentials =
                serde_json::from_slice(&kept).map_err(|error| {
                    file_error(&path, &format!("{error}; remove it to get a new account"))
                })?;
            Ok(Account::builder_with_http(https(acme)?).from_credentials(credentials).await?)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => new_account(acme).await,
        Err(error) => Err(file_error(&path, &error)),
    }
}

async fn new_account(acme: &Acme) -> Result<Account, ObtainError> {
    let contact = acme.contact.as_ref().map(|mail| format!("mailto:{mail}"));
    let contacts: Vec<&str> = contact.iter().map(String::as_str).collect();
    // The configuration is refused without the administrator's consent.
    let wanted = NewAccount {
        contact: &contacts,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let builder = Account::builder_with_http(https(acme)?);
    let (account, credentials) = builder.create(&wanted, acme.directory.clone(), None).await?;
    let path = acme.account();
    let kept = serde_json::to_vec(&credentials).map_err(|error| file_error(&path, &error))?;
    replace_private(&path, &kept).map_err(|error| file_error(&path, &error))?;
    Ok(account)
}

/// Shows that every name leads here, and waits until the authority has seen it.
async fn prove(acme: &Acme, challenges: &Challenges, order: &mut Order) -> Result<(), ObtainError> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        // What was proved lately need not be proved again.
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let name = match authorization.identifier().identifier {
            Identifier::Dns(name) => name.clone(),
            other => format!("{other:?}"),
        };
        let wanted = match acme.proof {
            Proof::Request => ChallengeType::Http01,
            Proof::Handshake => ChallengeType::TlsAlpn01,
        };
        let Some(mut challenge) = authorization.challenge(wanted) else {
            return Err(ObtainError::ProofNotOffered { kind: acme.proof.name(), name });
        };
        let proof = challenge.key_authorization();
        match acme.proof {
            Proof::Request => challenges.answer_requests(&challenge.token, proof.as_str()),
            Proof::Handshake => show_in_handshakes(challenges, &name, proof.digest().as_ref())?,
        }
        challenge.set_ready().await?;
    }
    match order.poll_ready(&PATIENCE).await {
        Ok(OrderStatus::Ready) => Ok(()),
        Ok(_) => Err(ObtainError::Unproven(objections(order).await)),
        // An order that failed may say so in general; what exactly, its parts know.
        Err(instant_acme::Error::Api(problem)) => {
            let objections = objections(order).await;
            if objections.is_empty() {
                return Err(ObtainError::Refused(Box::new(problem)));
            }
            Err(ObtainError::Unproven(objections))
        }
        Err(error) => Err(error.into()),
    }
}

/// What the authority says of each name that it was not convinced of.
async fn objections(order: &mut Order) -> String {
    let mut texts = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let known = authorization.refresh().await;
        let Ok(state) = known else { continue };
        let problems = state.challenges.iter().filter_map(|it| it.error.as_ref());
        texts.extend(problems.map(|problem| {
            let text = problem.detail.as_deref().or(problem.r#type.as_deref());
            format!("{}: {}", state.identifier(), text.unwrap_or("no reason given"))
        }));
    }
    texts.join("; ")
}

/// Has handshakes for `name` show a certificate with `digest` in it (RFC 8737).
fn show_in_handshakes(
    challenges: &Challenges,
    name: &str,
    digest: &[u8],
) -> Result<(), ObtainError> {
    let key = rcgen::KeyPair::generate()?;
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()])?;
    params.custom_extensions = vec![rcgen::CustomExtension::new_acme_identifier(digest)];
    let certificate = params.self_signed(&key)?.der().clone();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    challenges
        .answer_handshakes(name, certificate, key)
        .map_err(|error| ObtainError::Key(error.to_string()))
}
