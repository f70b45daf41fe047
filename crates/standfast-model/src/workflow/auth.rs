//! As whom something is called.

use super::value::{NAME, Uri, UriText, Use};
use super::value::{Named, Template, TextTemplate, named_by_use};
use crate::shape::{ByKey, Choice, Count, Fields, List, Object};

/// As whom something is called.
#[derive(Debug, Clone, PartialEq)]
pub enum Authentication {
    /// RFC 7617.
    Basic(Credentials<UserPassword>),
    /// RFC 6750.
    Bearer(Credentials<Template>),
    /// RFC 7616.
    Digest(Credentials<UserPassword>),
    /// RFC 6749.
    OAuth2(Credentials<Box<OAuth2>>),
    /// OpenID Connect: the end points are found at the authority.
    Oidc(Credentials<Box<OAuth2>>),
}

/// What is shown to be let in: in the document, or a secret by its name.
#[derive(Debug, Clone, PartialEq)]
pub enum Credentials<T> {
    /// In the document, usually by expressions that read secrets.
    Here(T),
    /// A secret that holds the same keys.
    Secret(String),
}

/// A name and its password.
#[derive(Debug, Clone, PartialEq)]
pub struct UserPassword {
    /// Who.
    pub username: Template,
    /// The password.
    pub password: Template,
}

/// How a token is had from an authority.
#[derive(Debug, Clone, PartialEq)]
pub struct OAuth2 {
    /// The authority.
    pub authority: Option<Uri>,
    /// Paths below it.
    pub endpoints: OAuth2Endpoints,
    /// What for.
    pub grant: Option<Grant>,
    /// Who asks.
    pub client: OAuth2Client,
    /// How the request is written.
    pub request: TokenRequest,
    /// Who may have issued the token.
    pub issuers: Vec<String>,
    /// What it shall allow.
    pub scopes: Vec<Template>,
    /// For whom it shall be.
    pub audiences: Vec<Template>,
    /// For the grant `password`.
    pub username: Option<Template>,
    /// For the grant `password`.
    pub password: Option<Template>,
    /// On behalf of whom.
    pub subject: Option<Token>,
    /// Who acts.
    pub actor: Option<Token>,
}

/// Paths of an authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuth2Endpoints {
    /// Where tokens are had.
    pub token: String,
    /// Where they are given back.
    pub revocation: String,
    /// Where they are looked up.
    pub introspection: String,
}

impl Default for OAuth2Endpoints {
    fn default() -> Self {
        Self {
            token: "/oauth2/token".to_owned(),
            revocation: "/oauth2/revoke".to_owned(),
            introspection: "/oauth2/introspect".to_owned(),
        }
    }
}

/// What a token is asked for with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// `authorization_code`.
    AuthorizationCode,
    /// `client_credentials`.
    ClientCredentials,
    /// `password`.
    Password,
    /// `refresh_token`.
    RefreshToken,
    /// RFC 8693.
    TokenExchange,
}

/// Who asks for a token.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OAuth2Client {
    /// Its name.
    pub id: Option<Template>,
    /// Its secret.
    pub secret: Option<Template>,
    /// A signed statement in place of a secret.
    pub assertion: Option<Template>,
    /// How it shows them.
    pub authentication: ClientAuthentication,
}

/// How a client shows its secret.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClientAuthentication {
    /// In the `Authorization` header.
    Basic,
    /// In the body.
    #[default]
    Post,
    /// As a statement signed by the secret.
    SecretJwt,
    /// As a statement signed by a private key.
    PrivateKeyJwt,
    /// Not at all.
    None,
}

/// How a request for a token is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TokenRequest {
    /// As a form.
    #[default]
    Form,
    /// As JSON.
    Json,
}

/// A token that is shown to have another.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// The token.
    pub token: Template,
    /// Its type, a URI.
    pub kind: Template,
}

type Secret<T> = ByKey<Object<Credentials<T>>, Object<Credentials<T>>>;

const fn credentials<T>(secret: Object<Credentials<T>>, here: Object<Credentials<T>>) -> Secret<T> {
    ByKey { key: "use", with: secret, without: here }
}

fn secret<T>(f: &mut Fields<'_, '_>) -> Option<Credentials<T>> {
    Some(Credentials::Secret(f.required("use", "The secret's name.", Use("secrets"))?))
}

fn user_password(f: &mut Fields<'_, '_>) -> Option<Credentials<UserPassword>> {
    let username = f.required("username", "Who.", TextTemplate);
    let password = f.required("password", "The password.", TextTemplate);
    Some(Credentials::Here(UserPassword { username: username?, password: password? }))
}

fn bearer(f: &mut Fields<'_, '_>) -> Option<Credentials<Template>> {
    Some(Credentials::Here(f.required("token", "The token.", TextTemplate)?))
}

fn oauth2(f: &mut Fields<'_, '_>) -> Option<Credentials<Box<OAuth2>>> {
    let endpoints = f.optional("endpoints", "Paths below the authority.", ENDPOINTS);
    let mut all = oidc_fields(f);
    all.endpoints = endpoints.unwrap_or_default();
    Some(Credentials::Here(Box::new(all)))
}

fn oidc(f: &mut Fields<'_, '_>) -> Option<Credentials<Box<OAuth2>>> {
    Some(Credentials::Here(Box::new(oidc_fields(f))))
}

fn oidc_fields(f: &mut Fields<'_, '_>) -> OAuth2 {
    let texts = || List { item: TextTemplate, min: 0 };
    OAuth2 {
        authority: f.optional("authority", "The authority.", UriText),
        endpoints: OAuth2Endpoints::default(),
        grant: f.optional("grant", "What for.", GRANT),
        client: f.optional("client", "Who asks.", CLIENT).unwrap_or_default(),
        request: f.optional("request", "How the request is written.", REQUEST).unwrap_or_default(),
        issuers: f
            .optional("issuers", "Who may have issued it.", List { item: NAME, min: 0 })
            .unwrap_or_default(),
        scopes: f.optional("scopes", "What it shall allow.", texts()).unwrap_or_default(),
        audiences: f.optional("audiences", "For whom it shall be.", texts()).unwrap_or_default(),
        username: f.optional("username", "For the grant `password`.", TextTemplate),
        password: f.optional("password", "For the grant `password`.", TextTemplate),
        subject: f.optional("subject", "On behalf of whom.", TOKEN),
        actor: f.optional("actor", "Who acts.", TOKEN),
    }
}

const GRANT: Choice<Grant> = Choice(&[
    ("authorization_code", Grant::AuthorizationCode),
    ("client_credentials", Grant::ClientCredentials),
    ("password", Grant::Password),
    ("refresh_token", Grant::RefreshToken),
    ("urn:ietf:params:oauth:grant-type:token-exchange", Grant::TokenExchange),
]);

const ENDPOINTS: Object<OAuth2Endpoints> = Object {
    doc: "Paths of an authority.",
    read: |f: &mut Fields<'_, '_>| {
        let usual = OAuth2Endpoints::default();
        Some(OAuth2Endpoints {
            token: f.or("token", "Where tokens are had.", NAME, usual.token),
            revocation: f.or("revocation", "Where they are given back.", NAME, usual.revocation),
            introspection: f.or("introspection", "Where they are looked up.", NAME, usual.introspection),
        })
    },
};

const CLIENT: Object<OAuth2Client> = Object {
    doc: "Who asks for a token.",
    read: |f: &mut Fields<'_, '_>| {
        const WAYS: Choice<ClientAuthentication> = Choice(&[
            ("client_secret_basic", ClientAuthentication::Basic),
            ("client_secret_post", ClientAuthentication::Post),
            ("client_secret_jwt", ClientAuthentication::SecretJwt),
            ("private_key_jwt", ClientAuthentication::PrivateKeyJwt),
            ("none", ClientAuthentication::None),
        ]);
        Some(OAuth2Client {
            id: f.optional("id", "Its name.", TextTemplate),
            secret: f.optional("secret", "Its secret.", TextTemplate),
            assertion: f.optional("assertion", "A signed statement in place of a secret.", TextTemplate),
            authentication: f.optional("authentication", "How it shows them.", WAYS).unwrap_or_default(),
        })
    },
};

const REQUEST: Object<TokenRequest> = Object {
    doc: "How a request for a token is written.",
    read: |f: &mut Fields<'_, '_>| {
        const ENCODINGS: Choice<TokenRequest> = Choice(&[
            ("application/x-www-form-urlencoded", TokenRequest::Form),
            ("application/json", TokenRequest::Json),
        ]);
        Some(f.optional("encoding", "The body's type.", ENCODINGS).unwrap_or_default())
    },
};

const TOKEN: Object<Token> = Object {
    doc: "A token that is shown to have another.",
    read: |f: &mut Fields<'_, '_>| {
        let token = f.required("token", "The token.", TextTemplate);
        let kind = f.required("type", "Its type, a URI.", TextTemplate);
        Some(Token { token: token?, kind: kind? })
    },
};

/// What `use.authentications` holds.
pub(crate) const POLICY: Object<Authentication> =
    Object { doc: "As whom something is called.", read: policy };

fn policy(f: &mut Fields<'_, '_>) -> Option<Authentication> {
    const USER_PASSWORD: Secret<UserPassword> = credentials(
        Object { doc: "A secret.", read: secret },
        Object { doc: "A name and its password.", read: user_password },
    );
    const BEARER: Secret<Template> =
        credentials(Object { doc: "A secret.", read: secret }, Object { doc: "A token.", read: bearer });
    const OAUTH2: Secret<Box<OAuth2>> =
        credentials(Object { doc: "A secret.", read: secret }, Object { doc: "OAuth 2.", read: oauth2 });
    const OIDC: Secret<Box<OAuth2>> =
        credentials(Object { doc: "A secret.", read: secret }, Object { doc: "OpenID Connect.", read: oidc });
    let basic = f.optional("basic", "A name and its password.", USER_PASSWORD).map(Authentication::Basic);
    let bearer = f.optional("bearer", "A token.", BEARER).map(Authentication::Bearer);
    let digest = f.optional("digest", "A name and its password, not sent as they are.", USER_PASSWORD);
    let oauth2 = f.optional("oauth2", "A token of an authority.", OAUTH2).map(Authentication::OAuth2);
    let oidc = f.optional("oidc", "A token of an authority that says where.", OIDC).map(Authentication::Oidc);
    f.count(Count::One, &["basic", "bearer", "digest", "oauth2", "oidc"]);
    basic.or(bearer).or(digest.map(Authentication::Digest)).or(oauth2).or(oidc)
}

/// As whom, in place or by name.
pub(crate) const AUTHENTICATION: ByKey<Object<Named<Authentication>>, Object<Named<Authentication>>> =
    named_by_use(
        Object {
            doc: "One of `use.authentications`.",
            read: |f: &mut Fields<'_, '_>| {
                Some(Named::Use(f.required("use", "Its name.", Use("authentications"))?))
            },
        },
        Object {
            doc: "As whom something is called.",
            read: |f: &mut Fields<'_, '_>| Some(Named::Here(policy(f)?)),
        },
    );
