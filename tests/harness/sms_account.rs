//! The SMS set-up of an AWS account, as SNS tells it: moto tells the settings and who has opted out,
//! and this server what moto cannot tell.

use std::sync::Arc;

use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};

use crate::{
    provider::{http, read_request},
    random_number, variable,
};

/// The set-up. Lists come in pages of one.
#[derive(Clone, Default)]
pub struct SmsAccount {
    pub in_sandbox: bool,
    /// The numbers of the sandbox and their status.
    pub sandbox_numbers: Vec<(String, &'static str)>,
    /// Number, country, capabilities, status.
    pub origination_numbers: Vec<(
        &'static str,
        &'static str,
        &'static [&'static str],
        &'static str,
    )>,
    /// The attributes that `SetSMSAttributes` has set. moto has none in a new account.
    pub attributes: Vec<(&'static str, &'static str)>,
    /// The actions that IAM denies.
    pub denied: Vec<&'static str>,
}

/// The same in moto: each account here is one of its own there.
struct Moto {
    url: String,
    account: String,
}

impl SmsAccount {
    /// Serves it until the test ends, at this URL.
    pub async fn serve(self) -> String {
        let moto = Moto {
            url: variable("AWS_ENDPOINT_URL_SNS").unwrap(),
            account: format!("{:012}", random_number() % 1_000_000_000_000),
        };
        for (name, value) in &self.attributes {
            let entry = [
                ("Action", "SetSMSAttributes"),
                ("Version", "2010-03-31"),
                ("attributes.entry.1.key", name),
                ("attributes.entry.1.value", value),
            ];
            let form = reqwest::Url::parse_with_params("http://form/", entry).unwrap();
            let (status, reply) = moto.ask(form.query().unwrap().to_owned()).await;
            assert_eq!(status, 200, "{reply}");
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new((self, moto));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, Arc::clone(&shared)));
            }
        });
        url
    }

    async fn reply(&self, moto: &Moto, body: String) -> (u16, String) {
        let form = reqwest::Url::parse(&format!("http://form/?{body}")).unwrap();
        let field = |name: &str| {
            let mut fields = form.query_pairs();
            let found = fields.find(|(field, _)| field == name);
            found.map_or_else(String::new, |(_, value)| value.into_owned())
        };
        let action = field("Action");
        if self.denied.contains(&&*action) {
            // SNS's messages quote numbers.
            let number = field("phoneNumber");
            return (
                403,
                format!(
                    "<ErrorResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><Error>\
                     <Type>Sender</Type><Code>AuthorizationError</Code><Message>User: \
                     arn:aws:sts::123456789012:assumed-role/migrate/migrate is not authorized to \
                     perform: SNS:{action} {number}</Message></Error>\
                     <RequestId>feedbeef</RequestId></ErrorResponse>"
                ),
            );
        }
        let token = field("NextToken");
        let result = match &*action {
            "GetSMSSandboxAccountStatus" => {
                format!("<IsInSandbox>{}</IsInSandbox>", self.in_sandbox)
            }
            "ListSMSSandboxPhoneNumbers" => {
                let members = self.sandbox_numbers.iter().map(|(number, status)| {
                    format!("<PhoneNumber>{number}</PhoneNumber><Status>{status}</Status>")
                });
                page(&members.collect::<Vec<_>>(), &token)
            }
            "ListOriginationNumbers" => {
                let members = self.origination_numbers.iter();
                let members = members.map(|(number, country, capabilities, status)| {
                    let capabilities = capabilities.iter();
                    let capabilities: String = capabilities
                        .map(|capability| ["<member>", *capability, "</member>"].concat())
                        .collect();
                    format!(
                        "<CreatedAt>2026-11-22T00:00:00.000Z</CreatedAt>\
                         <Iso2CountryCode>{country}</Iso2CountryCode>\
                         <NumberCapabilities>{capabilities}</NumberCapabilities>\
                         <PhoneNumber>{number}</PhoneNumber>\
                         <RouteType>Transactional</RouteType><Status>{status}</Status>"
                    )
                });
                page(&members.collect::<Vec<_>>(), &token)
            }
            _ => return moto.ask(body).await,
        };
        (
            200,
            format!(
                "<{action}Response xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\">\
                 <{action}Result>{result}</{action}Result><ResponseMetadata>\
                 <RequestId>feedbeef</RequestId></ResponseMetadata></{action}Response>"
            ),
        )
    }
}

impl Moto {
    async fn ask(&self, form: String) -> (u16, String) {
        let request = reqwest::Client::new()
            .post(&self.url)
            .header("Content-Type", "application/x-www-form-urlencoded")
            .header("X-Moto-Account-Id", &self.account)
            .header(
                "Authorization",
                "AWS4-HMAC-SHA256 Credential=testing/20261122/us-east-1/sns/aws4_request, \
                 SignedHeaders=host, Signature=0",
            );
        let reply = request.body(form).send().await.unwrap();
        (reply.status().as_u16(), reply.text().await.unwrap())
    }
}

/// The page that a token stands for: the number of members before it.
fn page(members: &[String], token: &str) -> String {
    let at: usize = token.parse().unwrap_or(0);
    let member = members.get(at);
    let member = member.map_or_else(String::new, |member| format!("<member>{member}</member>"));
    let next = if at + 1 < members.len() {
        format!("<NextToken>{}</NextToken>", at + 1)
    } else {
        String::new()
    };
    format!("{next}<PhoneNumbers>{member}</PhoneNumbers>")
}

async fn serve(mut client: TcpStream, shared: Arc<(SmsAccount, Moto)>) {
    while let Some((_, body)) = read_request(&mut client).await {
        let (account, moto) = &*shared;
        let (status, reply) = account.reply(moto, body).await;
        if client
            .write_all(http(status, &reply).as_bytes())
            .await
            .is_err()
        {
            return;
        }
    }
}
