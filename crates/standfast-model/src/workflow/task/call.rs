//! `call`: asks a service, a function or an agent.

use serde_json::{Map, Value};

use super::{Kind, object};
use crate::diagnostics::shown;
use crate::shape::{Choice, Count, Fields, Flag, FromText, Kinds, List, Object, Referent, Shape, Whole};
use crate::source::At;
use crate::workflow::auth::{AUTHENTICATION, Authentication};
use crate::workflow::event::{FOR_EACH, ForEachEvent};
use crate::workflow::period::{Delay, delay};
use crate::workflow::value::{
    AnyTemplate, AnyValue, Endpoint, Expression, NAME, Named, RESOURCE, Resource, Template, TextTemplate,
    endpoint, object_template, open_object, text_fields,
};

/// What is asked, and how.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    /// An HTTP resource.
    Http(Box<Http>),
    /// A method of a gRPC service.
    Grpc(Box<Grpc>),
    /// An operation of an `OpenAPI` document.
    OpenApi(Box<OpenApi>),
    /// An operation of an `AsyncAPI` document.
    AsyncApi(Box<AsyncApi>),
    /// An agent, by the Agent2Agent protocol.
    A2a(Box<A2a>),
    /// A server of the Model Context Protocol.
    Mcp(Box<Mcp>),
    /// A function: under `use.functions`, of a catalog, or at an address.
    Function(Function),
}

impl Call {
    /// What is done for each message that is awaited.
    pub fn for_each(&self) -> Option<&ForEachEvent> {
        match self {
            Self::AsyncApi(call) => match &call.message {
                Message::Subscribe(subscription) => subscription.for_each.as_ref(),
                Message::Publish { .. } => None,
            },
            _ => None,
        }
    }
}

/// A request.
#[derive(Debug, Clone, PartialEq)]
pub struct Http {
    /// The method, in capitals.
    pub method: Template,
    /// Where to.
    pub endpoint: Endpoint,
    /// Header fields.
    pub headers: Option<Template>,
    /// The body.
    pub body: Option<Template>,
    /// Query parameters.
    pub query: Option<Template>,
    /// What the task yields.
    pub output: HttpOutput,
    /// Whether 300 to 399 are answers like others, not errors.
    pub redirect: bool,
}

/// What an HTTP call yields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HttpOutput {
    /// The body as base64.
    Raw,
    /// The body, read by its type.
    #[default]
    Content,
    /// Request, status, header fields and body.
    Response,
}

/// A gRPC call.
#[derive(Debug, Clone, PartialEq)]
pub struct Grpc {
    /// The file that describes the service.
    pub proto: Resource,
    /// The service's name.
    pub service: String,
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: Option<u16>,
    /// As whom.
    pub authentication: Option<Named<Authentication>>,
    /// The method.
    pub method: String,
    /// The message.
    pub arguments: Option<Template>,
}

/// A call of an `OpenAPI` operation.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenApi {
    /// The document.
    pub document: Resource,
    /// The operation.
    pub operation: String,
    /// Its parameters.
    pub parameters: Option<Template>,
    /// As whom.
    pub authentication: Option<Named<Authentication>>,
    /// What the task yields.
    pub output: HttpOutput,
    /// Whether 300 to 399 are answers like others, not errors.
    pub redirect: bool,
}

/// A call of an `AsyncAPI` operation.
#[derive(Debug, Clone, PartialEq)]
pub struct AsyncApi {
    /// The document.
    pub document: Resource,
    /// The operation of version 3, or the channel of version 2.
    pub operation: AsyncOperation,
    /// The server's name and its variables.
    pub server: Option<(String, Option<Template>)>,
    /// Which of the servers, by its protocol.
    pub protocol: Option<String>,
    /// What is sent or awaited.
    pub message: Message,
    /// As whom.
    pub authentication: Option<Named<Authentication>>,
}

/// What of an `AsyncAPI` document is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AsyncOperation {
    /// Version 3.
    Operation(String),
    /// Version 2.
    Channel(String),
}

/// What is sent or awaited.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// A message is sent.
    Publish {
        /// Its payload.
        payload: Option<Template>,
        /// Its header fields.
        headers: Option<Template>,
    },
    /// Messages are awaited.
    Subscribe(Box<Subscription>),
}

/// Messages that are awaited.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscription {
    /// Which.
    pub filter: Option<Expression>,
    /// How many.
    pub consume: Consume,
    /// For how long.
    pub period: Option<Delay>,
    /// What is done for each.
    pub for_each: Option<ForEachEvent>,
}

/// How many messages are awaited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Consume {
    /// So many.
    Amount(u32),
    /// As long as this yields true after each.
    While(Expression),
    /// Until this yields true before one.
    Until(Expression),
}

/// A call of an agent.
#[derive(Debug, Clone, PartialEq)]
pub struct A2a {
    /// Where the agent says who it is.
    pub agent_card: Option<Resource>,
    /// Where the agent is.
    pub server: Option<Endpoint>,
    /// What it is asked.
    pub method: AgentMethod,
    /// With what.
    pub parameters: Option<Template>,
}

/// Methods of agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the protocol's own words")]
pub enum AgentMethod {
    MessageSend,
    MessageStream,
    TasksGet,
    TasksList,
    TasksCancel,
    TasksResubscribe,
    PushConfigSet,
    PushConfigGet,
    PushConfigList,
    PushConfigDelete,
    ExtendedCard,
}

/// A call by the Model Context Protocol.
#[derive(Debug, Clone, PartialEq)]
pub struct Mcp {
    /// The protocol's version.
    pub version: String,
    /// What is asked.
    pub method: McpMethod,
    /// With what.
    pub parameters: Option<Template>,
    /// After which time it is given up.
    pub timeout: Option<Delay>,
    /// How the server is reached.
    pub transport: McpTransport,
    /// Options of the transport.
    pub options: Map<String, Value>,
    /// Who asks: a name and a version.
    pub client: Option<(String, String)>,
}

/// Methods of MCP servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the protocol's own words")]
pub enum McpMethod {
    ToolsList,
    ToolsCall,
    PromptsList,
    PromptsGet,
    ResourcesList,
    ResourcesRead,
    TemplatesList,
}

/// How an MCP server is reached.
#[derive(Debug, Clone, PartialEq)]
pub enum McpTransport {
    /// By HTTP.
    Http {
        /// Where.
        endpoint: Endpoint,
        /// Header fields.
        headers: Option<Template>,
    },
    /// It is started, and spoken to by its standard streams.
    Stdio {
        /// The program.
        command: Template,
        /// Its arguments.
        arguments: Vec<Template>,
        /// Its environment.
        environment: Option<Template>,
    },
}

/// A call of a function.
#[derive(Debug, Clone, PartialEq)]
pub struct Function {
    /// Its name under `use.functions`, `name:version@catalog`, or an address.
    pub name: String,
    /// What it is given.
    pub with: Option<Template>,
}

pub(super) fn read(f: &mut Fields<'_, '_>) -> Option<Kind> {
    let Some(callee) = f.required("call", "What is called.", Callee.at()) else {
        f.optional("with", "What it is given.", AnyValue);
        return None;
    };
    let doc = "What is asked, and how.";
    let call = match callee.value.as_str() {
        "http" => Call::Http(Box::new(f.required("with", doc, object("A request.", http))?)),
        "grpc" => Call::Grpc(Box::new(f.required("with", doc, object("A gRPC call.", grpc))?)),
        "openapi" => {
            Call::OpenApi(Box::new(f.required("with", doc, object("An OpenAPI call.", open_api))?))
        }
        "asyncapi" => {
            Call::AsyncApi(Box::new(f.required("with", doc, object("An AsyncAPI call.", async_api))?))
        }
        "a2a" => Call::A2a(Box::new(f.required("with", doc, object("A call of an agent.", a2a))?)),
        "mcp" => Call::Mcp(Box::new(f.required("with", doc, object("An MCP call.", mcp))?)),
        _ => {
            let with = f.optional("with", "What it is given.", object_template());
            find_function(&callee, f);
            Call::Function(Function { name: callee.value, with })
        }
    };
    Some(Kind::Call(Box::new(call)))
}

/// Looks for a function where its name says that it is: in the document, in a catalog, or at an address, of which nothing is
/// known yet.
fn find_function(name: &At<String>, f: &mut Fields<'_, '_>) {
    let Some((_, cx)) = f.reading() else { return };
    match name.value.split_once('@') {
        _ if name.value.contains("://") => {}
        None => cx.refer(Referent::Use("functions"), &name.value, name.span),
        Some((function, catalog)) => {
            if !function.contains(':') {
                let message = format!("`{}` lacks a version", shown(&name.value));
                let hint = format!("write `{}:1.0.0@{}`", shown(function), shown(catalog));
                cx.reports.error_hint(name.span, message, hint);
            }
            if catalog != DEFAULT_CATALOG {
                cx.refer(Referent::Use("catalogs"), &catalog, name.span);
            }
        }
    }
}

/// What `call` may be besides a function.
pub(crate) const PROTOCOLS: [&str; 6] = ["http", "grpc", "openapi", "asyncapi", "a2a", "mcp"];
/// The catalog that every runtime has.
const DEFAULT_CATALOG: &str = "default";

struct Callee;

impl FromText for Callee {
    type Value = String;

    fn parse(&self, text: &str) -> Result<String, Option<String>> {
        let lower = text.to_ascii_lowercase();
        if lower != text && PROTOCOLS.contains(&lower.as_str()) {
            return Err(Some(format!("did you mean `{lower}`?")));
        }
        NAME.parse(text)
    }

    fn expected(&self) -> String {
        format!("one of {}, or a function", PROTOCOLS.join(", "))
    }

    fn json_schema(&self) -> Value {
        serde_json::json!({"type": "string"})
    }
}

const OUTPUTS: Choice<HttpOutput> =
    Choice(&[("raw", HttpOutput::Raw), ("content", HttpOutput::Content), ("response", HttpOutput::Response)]);

fn http(f: &mut Fields<'_, '_>) -> Option<Http> {
    let method = f.required("method", "The method.", TextTemplate);
    let endpoint = f.required("endpoint", "Where to.", endpoint());
    let headers = f.optional("headers", "Header fields.", text_fields());
    let body = f.optional("body", "The body.", AnyTemplate);
    let query = f.optional("query", "Query parameters.", text_fields());
    let output = f.optional("output", "What the task yields.", OUTPUTS).unwrap_or_default();
    let redirect = f.or("redirect", "Whether 300 to 399 are answers like others.", Flag, false);
    Some(Http { method: capitals(method?), endpoint: endpoint?, headers, body, query, output, redirect })
}

/// Methods are case-sensitive, and the language's own examples write `get`.
fn capitals(method: Template) -> Template {
    match method {
        Template::Value(Value::String(text)) => Template::Value(text.to_ascii_uppercase().into()),
        other => other,
    }
}

fn grpc(f: &mut Fields<'_, '_>) -> Option<Grpc> {
    struct Service {
        name: String,
        host: String,
        port: Option<u16>,
        authentication: Option<Named<Authentication>>,
    }
    const SERVICE: Object<Service> = object("A service.", |f| {
        let name = f.required("name", "Its name.", NAME);
        let host = f.required("host", "Its host.", NAME);
        let port = f.optional("port", "Its port.", Whole { min: 0, max: 65_535 });
        let authentication = f.optional("authentication", "As whom.", AUTHENTICATION);
        let port = port.and_then(|port| u16::try_from(port).ok());
        Some(Service { name: name?, host: host?, port, authentication })
    });
    let proto = f.required("proto", "The file that describes the service.", RESOURCE);
    let service = f.required("service", "The service.", SERVICE);
    let method = f.required("method", "The method.", NAME);
    let arguments = f.optional("arguments", "The message.", object_template());
    let Service { name: service, host, port, authentication } = service?;
    Some(Grpc { proto: proto?, service, host, port, authentication, method: method?, arguments })
}

fn open_api(f: &mut Fields<'_, '_>) -> Option<OpenApi> {
    let document = f.required("document", "The document.", RESOURCE);
    let operation = f.required("operationId", "The operation.", NAME);
    let parameters = f.optional("parameters", "Its parameters.", object_template());
    let authentication = f.optional("authentication", "As whom.", AUTHENTICATION);
    let output = f.optional("output", "What the task yields.", OUTPUTS).unwrap_or_default();
    let redirect = f.or("redirect", "Whether 300 to 399 are answers like others.", Flag, false);
    Some(OpenApi { document: document?, operation: operation?, parameters, authentication, output, redirect })
}

fn async_api(f: &mut Fields<'_, '_>) -> Option<AsyncApi> {
    const PROTOCOLS: Choice<&str> = Choice(&[
        ("amqp", "amqp"),
        ("amqp1", "amqp1"),
        ("anypointmq", "anypointmq"),
        ("googlepubsub", "googlepubsub"),
        ("http", "http"),
        ("ibmmq", "ibmmq"),
        ("jms", "jms"),
        ("kafka", "kafka"),
        ("mercure", "mercure"),
        ("mqtt", "mqtt"),
        ("mqtt5", "mqtt5"),
        ("nats", "nats"),
        ("pulsar", "pulsar"),
        ("redis", "redis"),
        ("sns", "sns"),
        ("solace", "solace"),
        ("sqs", "sqs"),
        ("stomp", "stomp"),
        ("ws", "ws"),
    ]);
    const SERVER: Object<(String, Option<Template>)> = object("A server.", |f| {
        let name = f.required("name", "Its name.", NAME);
        let variables = f.optional("variables", "Its variables.", object_template());
        Some((name?, variables))
    });
    const PUBLISH: Object<Message> = object("A message.", |f| {
        let payload = f.optional("payload", "Its payload.", object_template());
        let headers = f.optional("headers", "Its header fields.", object_template());
        Some(Message::Publish { payload, headers })
    });
    let document = f.required("document", "The document.", RESOURCE);
    let operation = f.optional("operation", "The operation.", NAME).map(AsyncOperation::Operation);
    let channel = f.optional("channel", "The channel of version 2.", NAME).map(AsyncOperation::Channel);
    f.count(Count::One, &["operation", "channel"]);
    let server = f.optional("server", "The server.", SERVER);
    let protocol = f.optional("protocol", "Which server, by its protocol.", PROTOCOLS).map(str::to_owned);
    let publish = f.optional("message", "What is sent.", PUBLISH);
    let subscribe = f.optional("subscription", "What is awaited.", object("Messages.", subscription));
    f.count(Count::One, &["message", "subscription"]);
    let authentication = f.optional("authentication", "As whom.", AUTHENTICATION);
    let message = publish.or(subscribe.map(|all| Message::Subscribe(Box::new(all))));
    Some(AsyncApi {
        document: document?,
        operation: operation.or(channel)?,
        server,
        protocol,
        message: message?,
        authentication,
    })
}

fn subscription(f: &mut Fields<'_, '_>) -> Option<Subscription> {
    const CONSUME: Object<(Consume, Option<Delay>)> = object("How many.", |f| {
        use crate::workflow::value::Condition;
        let period = f.optional("for", "For how long.", delay());
        let amount = f.optional("amount", "So many.", Whole { min: 1, max: u32::MAX }).map(Consume::Amount);
        let lasting = f.optional("while", "As long as this yields true.", Condition).map(Consume::While);
        let until = f.optional("until", "Until this yields true.", Condition).map(Consume::Until);
        f.count(Count::One, &["amount", "while", "until"]);
        Some((amount.or(lasting).or(until)?, period))
    });
    use crate::workflow::value::Condition;
    let filter = f.optional("filter", "Which.", Condition);
    let consume = f.required("consume", "How many.", CONSUME);
    let for_each = f.optional("foreach", "What is done for each.", FOR_EACH);
    let (consume, period) = consume?;
    Some(Subscription { filter, consume, period, for_each })
}

fn parameters() -> impl Shape<Value = Template> {
    Kinds::new("a mapping or an expression").mapping(AnyTemplate).text(TextTemplate)
}

fn a2a(f: &mut Fields<'_, '_>) -> Option<A2a> {
    const METHODS: Choice<AgentMethod> = Choice(&[
        ("message/send", AgentMethod::MessageSend),
        ("message/stream", AgentMethod::MessageStream),
        ("tasks/get", AgentMethod::TasksGet),
        ("tasks/list", AgentMethod::TasksList),
        ("tasks/cancel", AgentMethod::TasksCancel),
        ("tasks/resubscribe", AgentMethod::TasksResubscribe),
        ("tasks/pushNotificationConfig/set", AgentMethod::PushConfigSet),
        ("tasks/pushNotificationConfig/get", AgentMethod::PushConfigGet),
        ("tasks/pushNotificationConfig/list", AgentMethod::PushConfigList),
        ("tasks/pushNotificationConfig/delete", AgentMethod::PushConfigDelete),
        ("agent/getAuthenticatedExtendedCard", AgentMethod::ExtendedCard),
    ]);
    let agent_card = f.optional("agentCard", "Where the agent says who it is.", RESOURCE);
    let server = f.optional("server", "Where the agent is.", endpoint());
    f.count(Count::Some, &["agentCard", "server"]);
    let method = f.required("method", "What it is asked.", METHODS);
    let parameters = f.optional("parameters", "With what.", parameters());
    Some(A2a { agent_card, server, method: method?, parameters })
}

fn mcp(f: &mut Fields<'_, '_>) -> Option<Mcp> {
    const METHODS: Choice<McpMethod> = Choice(&[
        ("tools/list", McpMethod::ToolsList),
        ("tools/call", McpMethod::ToolsCall),
        ("prompts/list", McpMethod::PromptsList),
        ("prompts/get", McpMethod::PromptsGet),
        ("resources/list", McpMethod::ResourcesList),
        ("resources/read", McpMethod::ResourcesRead),
        ("resources/templates/list", McpMethod::TemplatesList),
    ]);
    const CLIENT: Object<(String, String)> = object("Who asks.", |f| {
        let name = f.required("name", "Its name.", NAME);
        let version = f.required("version", "Its version.", NAME);
        Some((name?, version?))
    });
    let version = f.or("protocolVersion", "The protocol's version.", NAME, "2025-06-18".to_owned());
    let method = f.required("method", "What is asked.", METHODS);
    let parameters = f.optional("parameters", "With what.", parameters());
    let timeout = f.optional("timeout", "After which time it is given up.", delay());
    let transport = f.required("transport", "How the server is reached.", object("A transport.", transport));
    let client = f.optional("client", "Who asks.", CLIENT);
    let (transport, options) = transport?;
    Some(Mcp { version, method: method?, parameters, timeout, transport, options, client })
}

fn transport(f: &mut Fields<'_, '_>) -> Option<(McpTransport, Map<String, Value>)> {
    const HTTP: Object<McpTransport> = object("By HTTP.", |f| {
        let endpoint = f.required("endpoint", "Where.", endpoint());
        let headers = f.optional("headers", "Header fields.", text_fields());
        Some(McpTransport::Http { endpoint: endpoint?, headers })
    });
    const STDIO: Object<McpTransport> = object("By standard streams.", |f| {
        let command = f.required("command", "The program.", TextTemplate);
        let arguments = f.optional("arguments", "Its arguments.", List { item: TextTemplate, min: 0 });
        let environment = f.optional("environment", "Its environment.", object_template());
        Some(McpTransport::Stdio { command: command?, arguments: arguments.unwrap_or_default(), environment })
    });
    let http = f.optional("http", "By HTTP.", HTTP);
    let stdio = f.optional("stdio", "By standard streams.", STDIO);
    f.count(Count::One, &["http", "stdio"]);
    let options = f.optional("options", "Options of the transport.", open_object()).unwrap_or_default();
    Some((http.or(stdio)?, options))
}
